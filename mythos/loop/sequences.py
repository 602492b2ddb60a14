"""Depths that differ between the sequences of a batch: which run in which pass, and what that saves.

All sequences end together: one of depth T enters at pass max(T) - T, so that the last k passes keep gradients
for all. Sorted by depth, deepest first, those that run in a pass are the first rows of the batch.
"""

from typing import NamedTuple

import numpy as np

from mythos.config.depth import DepthConfig
from mythos.loop.curriculum import grad_loops_at
from mythos.loop.policy import distribution


class Saving(NamedTuple):
    """Share of the core's work that is not done when shallow sequences enter late rather than run with the deepest."""

    loops: float
    """Of the passes, each sequence counted on its own."""
    training: float
    """Of the training FLOPs, where a pass with gradients costs three times one without."""


def active_rows(loops_B: np.ndarray) -> list[int]:
    """How many rows run in each pass, ``max(loops_B)`` numbers that never fall; the last is B."""
    deepest = int(loops_B.max())
    return [int((loops_B >= deepest - index).sum()) for index in range(deepest)]


def saving(loops_B: np.ndarray, num_grad_loops: int) -> Saving:
    """What one batch saves against running every row to the deepest."""
    deepest = loops_B.max()
    full = _cost(deepest, num_grad_loops)
    return Saving(float(1 - loops_B.mean() / deepest), float(1 - _cost(loops_B, num_grad_loops).mean() / full))


def expected_saving(config: DepthConfig, batch_size: int, step: int | None = None) -> Saving:
    """What batches of ``batch_size`` rows drawn one by one save in the long run (a ratio of expectations)."""
    mass = distribution(config, step)
    mass_of_deepest = np.diff(np.cumsum(mass).clip(max=1.0) ** batch_size, prepend=0.0)
    loops = np.arange(1, len(mass) + 1)
    costs = _cost(loops, grad_loops_at(config, step))
    saved_loops, saved_training = (float(1 - mass @ work / (mass_of_deepest @ work)) for work in (loops, costs))
    return Saving(saved_loops, saved_training)


def _cost(loops: np.ndarray, num_grad_loops: int) -> np.ndarray:
    """Training FLOPs of the core in units of one forward pass: 1 without gradients, 3 with."""
    return loops + 2 * np.minimum(loops, num_grad_loops)
