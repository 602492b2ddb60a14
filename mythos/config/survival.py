"""When a run ends before its last step, and what happens when it fails."""

from mythos.config.base import Count, NonNegative, Positive, config


@config
class SurvivalSettings:
    """The fields of ``run`` that say how it meets time limits, failures and machines that hang."""

    time_limit_seconds: Positive | None = None
    """Wall time of the process (of the launcher, where it starts the ranks) after which it must have ended, saved."""
    time_limit_margin_seconds: NonNegative = 60.0
    """How long before the limit the run aims to end, beyond the measured times of a step and a save."""
    max_restarts: Count = 0
    """Times in a row that ``mythos train`` starts failed ranks again without a newer checkpoint; one machine only."""
    restart_backoff_seconds: NonNegative = 5.0
    """Wait before the first restart; it doubles with each further one, up to 10 minutes."""

    stall_seconds: Positive | None = 1800.0
    """A rank in which nothing ends for so long (start, part of a step, validation, save) prints its stacks and ends."""
    straggler_ratio: Positive | None = 1.5
    """A rank that takes so many times the median before it first waits for others is reported; null for none."""
    max_poison_skips: Count = 2
    """Batches in a row that are left out because a step failed twice on each of them; 0 leaves none out."""

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
