"""The learning rate as a pure function of the step."""

import math

from mythos.config.schedule import CosineSchedule, ScheduleConfig, TrapezoidSchedule, warmup_steps


def learning_rate_factor(config: ScheduleConfig, step: int, num_steps: int) -> float:
    """Return the factor on the learning rate in a step (0-based) of a run of ``num_steps``.

    Warm-up is (step + 1) / num_warmup_steps, so that step 0 trains and step num_warmup_steps - 1 has the
    whole rate. ``final_factor`` is reached at step ``num_steps``, one after the last, so that the last step
    trains even where it is 0. Where warm-up and cooldown overlap, the lower one applies.
    """
    if step >= num_steps:
        return config.final_factor
    num_warmup_steps = warmup_steps(config, num_steps)
    warmup = min(1.0, (step + 1) / num_warmup_steps) if num_warmup_steps else 1.0
    return min(warmup, config.final_factor + (1 - config.final_factor) * _descent(config, step, num_steps))


def _descent(config: ScheduleConfig, step: int, num_steps: int) -> float:
    """Return 1 before the descent, falling to 0 at ``num_steps``."""
    num_left = num_steps - step
    match config:
        case CosineSchedule():
            fraction_left = min(1.0, num_left / max(1, num_steps - warmup_steps(config, num_steps)))
            return 0.5 * (1 - math.cos(math.pi * fraction_left))
        case TrapezoidSchedule(cooldown_fraction=cooldown_fraction):
            num_cooldown_steps = cooldown_fraction * num_steps
            return min(1.0, num_left / num_cooldown_steps) if num_cooldown_steps else 1.0
