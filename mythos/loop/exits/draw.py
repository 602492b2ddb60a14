"""The loops whose loss a training step reads."""

from typing import NamedTuple

import numpy as np

_STREAM = 0xE817  # keeps this stream apart from every other use of the run's seed


class Exits(NamedTuple):
    """Ascending 0-based loops whose loss is read, and the weights that make their sum unbiased."""

    loops: tuple[int, ...]
    weights: tuple[float, ...]


def draw_exits(num_loops: int, num_exits: int, seed: int, step: int) -> Exits:
    """Draw the last loop and ``num_exits - 1`` of the others without replacement, as a pure function of the step.

    The sum over loops t of p_t L_t is estimated by sum_x weight_x p_x L_x, whose mean over draws is that sum. A single
    exit is no estimate: it is for fixed halting, where p is one at the last loop.
    """
    if num_exits == 1:
        return Exits((num_loops - 1,), (1.0,))
    if num_loops <= num_exits:
        return Exits(tuple(range(num_loops)), (1.0,) * num_loops)
    generator = np.random.Generator(np.random.Philox(key=[seed, _STREAM], counter=[step, 0, 0, 0]))
    others = sorted(generator.random(num_loops - 1).argsort()[: num_exits - 1].tolist())
    weight = (num_loops - 1) / (num_exits - 1)
    return Exits((*others, num_loops - 1), (*[weight] * len(others), 1.0))
