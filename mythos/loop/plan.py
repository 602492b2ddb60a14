"""What one optimiser step will do, as a pure function of (config, step), the same on every rank."""

from typing import NamedTuple

from mythos.config.halting import FixedHalting, PonderHalting
from mythos.config.run import RunConfig
from mythos.loop.exits import Exits, draw_exits
from mythos.loop.halting import penalty_weight
from mythos.loop.policy import Depth, draw


class StepPlan(NamedTuple):
    """Depth and exits of a step; all its micro-batches share it."""

    depth: Depth
    exits: Exits
    halting_weight: float
    """Weight of the halting penalty at this step."""


def plan_step(config: RunConfig, step: int) -> StepPlan:
    """Draw the depth, choose the exits, read the schedules."""
    depth = draw(config.depth, config.run.seed, step)
    num_exits = num_exits_read(config, depth.num_loops)
    exits = draw_exits(depth.num_loops, num_exits, config.run.seed, step)
    match config.halting:
        case FixedHalting():
            weight = 0.0
        case learned:
            weight = penalty_weight(learned, step, config.run.num_steps)
    return StepPlan(depth, exits, weight)


def num_exits_read(config: RunConfig, num_loops: int) -> int:
    """How many exits a step of ``num_loops`` passes reads: one, unless a loss asks for more."""
    num_exits = 1
    match config.halting:
        case PonderHalting(train="gate"):
            num_exits = num_loops
        case PonderHalting(num_exits=wanted):
            num_exits = wanted
    if config.objective.supervise_loops:
        num_exits = max(num_exits, config.objective.num_supervised_loops)
    return min(num_exits, num_loops)
