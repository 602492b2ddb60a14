"""Schedule of the learning rate, as a factor on that of the optimiser."""

from typing import Annotated, Final, Literal

from pydantic import Field

from mythos.config.base import Count, Fraction, config

WARMUP_FRACTION: Final = 0.1
MIN_WARMUP_STEPS: Final = 60
MAX_WARMUP_STEPS: Final = 2000


@config
class CosineSchedule:
    """Linear warm-up, then half a cosine down to ``final_factor``."""

    kind: Literal["cosine"] = "cosine"
    num_warmup_steps: Count | None = None
    """Steps of the warm-up; null for a tenth of the run, see ``warmup_steps``."""
    final_factor: Fraction = 0.1
    """Rate at the end of the run, relative to the highest."""


@config
class TrapezoidSchedule:
    """Linear warm-up, a plateau, then a linear descent over the last ``cooldown_fraction`` of the run."""

    kind: Literal["trapezoid"] = "trapezoid"
    num_warmup_steps: Count | None = None
    """Steps of the warm-up; null for a tenth of the run, see ``warmup_steps``."""
    cooldown_fraction: Fraction = 0.5
    """Share of the run over which the rate descends."""
    final_factor: Fraction = 0.0
    """Rate at the end of the run, relative to the highest."""


ScheduleConfig = Annotated[CosineSchedule | TrapezoidSchedule, Field(discriminator="kind")]


def warmup_steps(config: ScheduleConfig, num_steps: int) -> int:
    """Return the number of warm-up steps of a run of ``num_steps``.

    By default a tenth of the run, but at least 60 steps, at most 2,000 and at most half of the run: with shorter
    warm-ups the first updates drown the embedding, and the routers collapse (docs/experiments/routing-collapse.md).
    """
    if config.num_warmup_steps is not None:
        return config.num_warmup_steps
    share = round(WARMUP_FRACTION * num_steps)
    return min(max(share, MIN_WARMUP_STEPS), MAX_WARMUP_STEPS, num_steps // 2)
