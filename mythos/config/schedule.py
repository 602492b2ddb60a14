"""Schedule of the learning rate, as a factor on that of the optimiser."""

from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import Count, Fraction, config


@config
class CosineSchedule:
    """Linear warm-up, then half a cosine down to ``final_factor``."""

    kind: Literal["cosine"] = "cosine"
    num_warmup_steps: Count
    final_factor: Fraction = 0.1


@config
class TrapezoidSchedule:
    """Linear warm-up, a plateau, then a linear descent over the last ``cooldown_fraction`` of the run."""

    kind: Literal["trapezoid"] = "trapezoid"
    num_warmup_steps: Count
    cooldown_fraction: Fraction = 0.5
    final_factor: Fraction = 0.0


ScheduleConfig = Annotated[CosineSchedule | TrapezoidSchedule, Field(discriminator="kind")]
