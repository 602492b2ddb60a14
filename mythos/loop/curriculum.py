"""Mean of T and bound of k in a given step: the ramp at the start, the stages of growth later."""

import math

from mythos.config.depth import DepthConfig, FixedDepth, GrowthStage, Ramp, default_grad_loops


def mean_at(config: DepthConfig, step: int | None = None) -> float:
    """Return the mean of the distribution of T in a step; it never falls. None ignores the curriculum."""
    if isinstance(config, FixedDepth) or step is None:
        return config.mean
    if (stage := _stage_at(config.growth, step)) is not None:
        return stage.mean
    if config.ramp is None or config.ramp.start_mean is None:
        return config.mean
    start = config.ramp.start_mean
    return start + _share(config.ramp, step) * (config.mean - start)


def grad_loops_at(config: DepthConfig, step: int | None = None) -> int:
    """Return the largest number of loops that keep gradients in a step. None ignores the curriculum."""
    if isinstance(config, FixedDepth) or step is None:
        return config.grad_loops
    if (stage := _stage_at(config.growth, step)) is not None:
        return stage.num_grad_loops or config.num_grad_loops or default_grad_loops(stage.mean)
    if config.ramp is None or config.ramp.start_grad_loops is None:
        return config.grad_loops
    start = config.ramp.start_grad_loops
    reached = start + _share(config.ramp, step) * (config.grad_loops - start)
    return math.ceil(reached - 1e-9)  # rounding must not lift a whole number to the next


def _stage_at(growth: tuple[GrowthStage, ...], step: int) -> GrowthStage | None:
    """Return the last stage that has begun."""
    return next((stage for stage in reversed(growth) if stage.step <= step), None)


def _share(ramp: Ramp, step: int) -> float:
    """Return the progress of the ramp, 0 in step 0 and 1 from ``num_steps`` on."""
    share = min(1.0, step / ramp.num_steps)
    match ramp.shape:
        case "linear":
            return share
        case "one_minus_sqrt":
            return 1 - math.sqrt(1 - share)
