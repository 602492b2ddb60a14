"""The plan of one optimiser step, a pure function of (config, step), the same on every rank.

Where every sequence draws its own number of loops, or its own exits, the plan is that of a micro-batch and also a
function of its sample ids.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from mythos.config.halting import FixedHalting, HaltingConfig, PonderHalting
from mythos.config.run import RunConfig
from mythos.loop.curriculum import grad_loops_at
from mythos.loop.exits.draw import Exits, draw_exits, draw_exits_of_rows
from mythos.loop.policy import Depth, draw, draw_rows


class StepPlan(NamedTuple):
    """Loops and exits of a step; all its micro-batches share it, unless each sequence draws its own."""

    depth: Depth
    """With ``loops_B``: T of the deepest row, and the step's k, which may be larger."""
    exits: Exits
    halting_weight: float
    """Weight of the halting penalty at this step."""
    loops_B: np.ndarray | None = None
    """Loops of each row; None where all run ``depth``."""

    def mean_depth(self) -> tuple[float, float]:
        """Return the numbers of loops, and of loops that keep gradients, averaged over rows."""
        if self.loops_B is None:
            return self.depth
        return float(self.loops_B.mean()), float(np.minimum(self.loops_B, self.depth.num_grad_loops).mean())


def plan_step(config: RunConfig, step: int, sample_ids_B: Tensor) -> StepPlan:
    """Draw the loops and the exits, and evaluate the schedules.

    Args:
        sample_ids_B: of the micro-batch; copied to the host only where each sequence draws its own loops or exits.
    """
    loops_B = None
    if config.depth.per_sequence:
        loops_B = draw_rows(config.depth, config.run.seed, step, sample_ids_B.cpu().numpy())
        depth = Depth(int(loops_B.max()), grad_loops_at(config.depth, step))
    else:
        depth = draw(config.depth, config.run.seed, step)
    num_exits = int(config.num_exits(depth.num_loops))
    if isinstance(config.halting, PonderHalting) and num_exits < depth.num_loops:
        sample_ids = sample_ids_B.cpu().numpy()
        exits = draw_exits_of_rows(depth.num_loops, num_exits, config.run.seed, step, sample_ids)
    else:
        exits = draw_exits(depth.num_loops, num_exits, config.run.seed, step)
    return StepPlan(depth, exits, halting_weight(config.halting, step, config.run.num_steps), loops_B)


def halting_weight(config: HaltingConfig, step: int, num_steps: int) -> float:
    """Return the weight of the halting penalty: it rises over the warm-up and moves to its final value; 0 if fixed."""
    if isinstance(config, FixedHalting):
        return 0.0
    final = config.final_weight if isinstance(config, PonderHalting) else None
    target = config.weight if final is None else config.weight + (final - config.weight) * step / max(1, num_steps - 1)
    return target * min(1.0, (step + 1) / (config.num_warmup_steps + 1))
