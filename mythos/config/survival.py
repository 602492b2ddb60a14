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

    max_poison_skips: Count = 2
    """Batches in a row that are left out because a step failed twice on each of them; 0 leaves none out."""

    def __post_init__(self) -> None:
        if self.time_limit_seconds is not None and self.time_limit_margin_seconds >= self.time_limit_seconds:
            raise ValueError(
                f"time_limit_margin_seconds is {self.time_limit_margin_seconds:g} but time_limit_seconds is "
                f"{self.time_limit_seconds:g}, which leaves no time to train; shorten the margin."
            )
