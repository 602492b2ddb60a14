"""When a run ends before its last step."""

from mythos.config.base import NonNegative, Positive, config


@config
class SurvivalSettings:
    """The fields of ``run`` that say when it ends before its last step."""

    time_limit_seconds: Positive | None = None
    """Wall time of the process (of the launcher, where it starts the ranks) after which it must have ended, saved."""
    time_limit_margin_seconds: NonNegative = 60.0
    """How long before the limit the run aims to end, beyond the measured times of a step and a save."""

    def __post_init__(self) -> None:
        if self.time_limit_seconds is not None and self.time_limit_margin_seconds >= self.time_limit_seconds:
            raise ValueError(
                f"time_limit_margin_seconds is {self.time_limit_margin_seconds:g} but time_limit_seconds is "
                f"{self.time_limit_seconds:g}, which leaves no time to train; shorten the margin."
            )
