"""When a step is not worth taking."""

from mythos.config.base import Count, Positive, PositiveInt, config


@config
class GuardConfig:
    """Steps whose loss or gradient is not finite are always skipped; spikes are where ``sigmas`` is set."""

    sigmas: Positive | None = 6.0
    """Skip a step whose loss or gradient norm lies so many standard deviations above the mean of those before it."""
    window: PositiveInt = 128
    """Steps that mean and deviation look back on."""
    num_history_steps: PositiveInt = 64
    """Steps taken before spikes are judged."""
    max_skips: PositiveInt = 8
    """Skipped steps among the last ``window`` that take the run back to a checkpoint."""
    max_rollbacks: Count = 2
    """Times that a run is taken back; after that it ends with a diagnosis."""

    def __post_init__(self) -> None:
        if self.num_history_steps > self.window:
            raise ValueError(
                f"num_history_steps is {self.num_history_steps} but window is {self.window}; no more steps than the "
                "window are remembered, so lower one or raise the other."
            )
