"""What one optimiser step will do, as a pure function of (config, step), the same on every rank.

Where every sequence has a depth of its own, the plan is that of a micro-batch, and also a function of its sample ids.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from mythos.config.halting import FixedHalting, PonderHalting
from mythos.config.run import RunConfig
from mythos.loop.curriculum import grad_loops_at
from mythos.loop.exits import Exits, draw_exits
from mythos.loop.halting import penalty_weight
from mythos.loop.policy import Depth, draw, draw_rows


class StepPlan(NamedTuple):
    """Depth and exits of a step; all its micro-batches share it, unless sequences have depths of their own."""

    depth: Depth
    """With ``loops_B``: T of the deepest row, and the step's k, which may exceed it."""
    exits: Exits
    halting_weight: float
    """Weight of the halting penalty at this step."""
    loops_B: np.ndarray | None = None
    """Passes of each row; None where all run ``depth``."""

    def mean_depth(self) -> tuple[float, float]:
        """Passes, and passes that keep gradients, averaged over rows."""
        if self.loops_B is None:
            return self.depth
        return float(self.loops_B.mean()), float(np.minimum(self.loops_B, self.depth.num_grad_loops).mean())


def plan_step(config: RunConfig, step: int, sample_ids_B: Tensor) -> StepPlan:
    """Draw the depth, choose the exits, read the schedules.

    Args:
        sample_ids_B: of the micro-batch; read, and waited for, only where each sequence has a depth of its own.
    """
    loops_B = None
    if config.depth.per_sequence:
        loops_B = draw_rows(config.depth, config.run.seed, step, sample_ids_B.cpu().numpy())
        depth = Depth(int(loops_B.max()), grad_loops_at(config.depth, step))
    else:
        depth = draw(config.depth, config.run.seed, step)
    num_exits = num_exits_read(config, depth.num_loops)
    exits = draw_exits(depth.num_loops, num_exits, config.run.seed, step)
    match config.halting:
        case FixedHalting():
            weight = 0.0
        case learned:
            weight = penalty_weight(learned, step, config.run.num_steps)
    return StepPlan(depth, exits, weight, loops_B)


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
