"""The loops whose loss a training step reads."""

from typing import NamedTuple

import numpy as np

_STEPS = 0xE817  # keeps this stream apart from every other use of the run's seed
_SEQUENCES = 0xE818


class Exits(NamedTuple):
    """Ascending 0-based loops whose loss is read, and the weights that make their sum unbiased."""

    loops: tuple[int, ...] | np.ndarray
    """Those of all sequences, or int64 ``[X, B]`` with those of each one; the last exit is the last loop for all."""
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
    others = _others(num_loops, num_exits, np.random.Philox(key=[seed, _STEPS], counter=[step, 0, 0, 0]))
    return Exits((*others, num_loops - 1), _weights(num_loops, num_exits))


def draw_exits_of_rows(num_loops: int, num_exits: int, seed: int, step: int, sample_ids_B: np.ndarray) -> Exits:
    """Draw as ``draw_exits``, for each sequence by its sample id, so that the draws of a batch average out."""
    assert 1 < num_exits < num_loops, f"{num_exits} exits of {num_loops} loops are not drawn"
    rows = [
        [*_others(num_loops, num_exits, np.random.Philox(key=[seed, _SEQUENCES], counter=[sample_id, step, 0, 0])), -1]
        for sample_id in sample_ids_B.tolist()
    ]
    return Exits(np.array(rows).T % num_loops, _weights(num_loops, num_exits))


def _others(num_loops: int, num_exits: int, bits: np.random.Philox) -> list[int]:
    """Return ``num_exits - 1`` of the loops before the last one, ascending."""
    return sorted(np.random.Generator(bits).random(num_loops - 1).argsort()[: num_exits - 1].tolist())


def _weights(num_loops: int, num_exits: int) -> tuple[float, ...]:
    return (*[(num_loops - 1) / (num_exits - 1)] * (num_exits - 1), 1.0)
