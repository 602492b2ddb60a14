"""Time limits, restarts and stalls of a run."""

from mythos.config.base import Count, NonNegative, Positive, Seconds, config


@config
class SurvivalSettings:
    """Fields of ``run`` about time limits, failures and machines that hang."""

    time_limit_seconds: Seconds | None = None
    """Wall time after which the process (the launcher, where it starts the ranks) must have saved and ended."""
    time_limit_margin_seconds: NonNegative = 60.0
    """Seconds before the limit at which the run aims to end, beyond the measured times of a step and a save."""
    max_restarts: Count = 0
    """Consecutive restarts of failed ranks by ``mythos train`` without a new checkpoint; one machine only."""
    restart_backoff_seconds: NonNegative = 5.0
    """Delay before the first restart; it doubles with each further one, up to 10 minutes."""

    stall_seconds: Seconds | None = 1800.0
    """A rank without progress for this long (start, part of a step, validation, save) prints its stacks and exits."""
    straggler_ratio: Positive | None = 1.5
    """A rank whose time to its first wait for others is this many times the median is reported; null reports none."""
    max_poison_skips: Count = 2
    """Consecutive batches that are left out because a step failed twice on each of them; 0 leaves none out."""

    def __post_init__(self) -> None:
        if self.straggler_ratio is not None and self.straggler_ratio <= 1:
            raise ValueError(
                f"straggler_ratio is {self.straggler_ratio:g}, which every other rank exceeds; set it above 1, or null."
            )
        if self.time_limit_seconds is not None and self.time_limit_margin_seconds >= self.time_limit_seconds:
            raise ValueError(
                f"time_limit_margin_seconds is {self.time_limit_margin_seconds:g} but time_limit_seconds is "
                f"{self.time_limit_seconds:g}, which leaves no time to train; shorten the margin."
            )
