"""When a step is skipped and when a run is rolled back."""

from mythos.config.base import Count, Positive, PositiveInt, config


@config
class GuardConfig:
    """Steps whose loss or gradient is not finite are always skipped; spikes are skipped where ``sigmas`` is set."""

    sigmas: Positive | None = 6.0
    """Skip a step whose loss or gradient norm lies this many standard deviations above the mean of the steps before."""
    window: PositiveInt = 128
    """Steps over which mean and deviation are computed."""
    num_history_steps: PositiveInt = 64
    """Steps before the first one that can be a spike."""
    max_skips: PositiveInt = 8
    """Skipped steps among the last ``window`` after which the run returns to a checkpoint."""
    max_rollbacks: Count = 2
    """Number of rollbacks; the next one ends the run with a diagnosis."""

    def __post_init__(self) -> None:
        if self.num_history_steps > self.window:
            raise ValueError(
                f"num_history_steps is {self.num_history_steps} but window is {self.window}; no more steps than the "
                "window are kept, so lower one or raise the other."
            )
