"""Numbers of loops that differ between the sequences of a batch: which rows run in which loop, and what that saves.

All sequences end together: one of T loops enters at loop max(T) - T, so that the last k loops keep gradients for
all. When rows are sorted by T, largest first, those that run in a loop are the first rows of the batch.
"""

from typing import NamedTuple

import numpy as np

from mythos.config.depth import DepthConfig
from mythos.loop.curriculum import grad_loops_at
from mythos.loop.policy import distribution


class Saving(NamedTuple):
    """Share of the core's work that is saved when sequences of few loops enter late rather than run max(T) loops."""

    loops: float
    """Share of the loops, counted for each sequence."""
    training: float
    """Share of the training FLOPs, where a loop with gradients costs three times one without."""


def active_rows(loops_B: np.ndarray) -> list[int]:
    """Return how many rows run in each loop, ``max(loops_B)`` numbers that never fall; the last is B."""
    deepest = int(loops_B.max())
    return [int((loops_B >= deepest - index).sum()) for index in range(deepest)]


def saving(loops_B: np.ndarray, num_grad_loops: int) -> Saving:
    """Return the saving of one batch compared with max(T) loops for every row."""
    deepest = loops_B.max()
    full = _cost(deepest, num_grad_loops)
    return Saving(float(1 - loops_B.mean() / deepest), float(1 - _cost(loops_B, num_grad_loops).mean() / full))


def expected_saving(config: DepthConfig, batch_size: int, step: int | None = None) -> Saving:
    """Return the expected saving of batches of ``batch_size`` independent draws, as a ratio of expectations."""
    mass = distribution(config, step)
    mass_of_deepest = np.diff(np.cumsum(mass).clip(max=1.0) ** batch_size, prepend=0.0)
    loops = np.arange(1, len(mass) + 1)
    costs = _cost(loops, grad_loops_at(config, step))
    saved_loops, saved_training = (float(1 - mass @ work / (mass_of_deepest @ work)) for work in (loops, costs))
    return Saving(saved_loops, saved_training)


def _cost(loops: np.ndarray, num_grad_loops: int) -> np.ndarray:
    """Return training FLOPs of the core in units of one loop's forward: 1 without gradients, 3 with."""
    return loops + 2 * np.minimum(loops, num_grad_loops)
