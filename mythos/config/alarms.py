"""When a run's figures are worth an alarm."""

from mythos.config.base import Count, Fraction, NonNegative, Positive, PositiveInt, config


@config
class AlarmsConfig:
    """Limits; a figure that crosses one raises an alarm, which is recorded and said, and stops nothing."""

    num_records: PositiveInt = 3
    """Trace records in a row that must cross a limit; idle experts and numbers that are not finite need one."""
    token_correlation: Fraction = 0.95
    """Mean cosine between the states of a sequence's tokens after some loop: collapse."""
    ignored_state: NonNegative = 0.01
    """How much smaller, relatively, the loss at the mean depth must be than at one loop."""
    change_growth: Positive = 1.0
    """Factor by which the relative change grows from loop to loop, over the second half of the loops: divergence."""
    idle_steps: PositiveInt = 500
    """Steps without a token in any loop: a dead expert."""
    halting_mass: Fraction = 1e-4
    """Probability of leaving after some loop below the mean depth: a starved loop."""
    num_warmup_steps: Count = 1000
    """Steps before which neither an ignored state nor a starved loop is looked for."""
