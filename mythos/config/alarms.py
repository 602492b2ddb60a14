"""Limits beyond which the metrics of a run raise an alarm."""

from mythos.config.base import Count, Fraction, NonNegative, Positive, PositiveInt, config


@config
class AlarmsConfig:
    """Limits. A metric that crosses one raises an alarm, which is recorded and printed; training continues."""

    num_records: PositiveInt = 3
    """Consecutive telemetry records that must cross a limit; one is enough for idle experts and non-finite values."""
    token_correlation: Fraction = 0.95
    """Largest mean cosine between the states of a sequence's tokens after any loop; more means collapse."""
    ignored_state: NonNegative = 0.01
    """Smallest relative decrease of the loss from one loop to the mean loop count; less means an ignored state."""
    change_growth: Positive = 1.0
    """Largest growth factor of the relative change from loop to loop, over the second half of the loops; more means
    divergence."""
    idle_steps: PositiveInt = 500
    """Steps without a routed token in any loop after which an expert counts as dead."""
    collapsed_routing: Fraction = 0.75
    """Largest load violation of a layer, as a share of the largest possible one; more means that most tokens use the
    same experts."""
    halting_mass: Fraction = 1e-4
    """Smallest probability of exiting after each loop below the mean loop count; less means a starved loop."""
    num_warmup_steps: Count = 1000
    """Steps before which ignored states and starved loops raise no alarm."""
