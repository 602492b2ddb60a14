"""Where a training step reads the loss, and when inference may stop."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_STREAM = 0xE817  # keeps this stream apart from every other use of the run's seed


class Exits(NamedTuple):
    """Ascending 0-based passes whose loss is read, and the weights that make their sum unbiased."""

    loops: tuple[int, ...]
    weights: tuple[float, ...]


def draw_exits(num_loops: int, num_exits: int, seed: int, step: int) -> Exits:
    """The last pass, and ``num_exits - 1`` of the others drawn without replacement; a pure function of the step.

    A sum over passes t of p_t L_t is estimated by sum_x weight_x p_x L_x, whose mean over draws is the sum itself
    (one exit alone is no estimate: it is for fixed halting, where p is all on the last pass).
    """
    if num_exits == 1:
        return Exits((num_loops - 1,), (1.0,))
    if num_loops <= num_exits:
        return Exits(tuple(range(num_loops)), (1.0,) * num_loops)
    generator = np.random.Generator(np.random.Philox(key=[seed, _STREAM], counter=[step, 0, 0, 0]))
    others = sorted(generator.random(num_loops - 1).argsort()[: num_exits - 1].tolist())
    weight = (num_loops - 1) / (num_exits - 1)
    return Exits((*others, num_loops - 1), (*[weight] * len(others), 1.0))


def first_loop(stop_TN: Tensor) -> Tensor:
    """Index of the first pass whose condition holds, or the last pass, ``[N]``."""
    never_N = ~stop_TN.any(0)
    return stop_TN.int().argmax(0).masked_fill(never_N, stop_TN.shape[0] - 1)


def by_quantile(p_TN: Tensor, quantile: float) -> Tensor:
    """Stop once the exit distribution's sum reaches ``quantile`` (Ouro)."""
    return first_loop(p_TN.cumsum(0) >= quantile)


def by_output_divergence(log_prob_TNV: Tensor, threshold: float) -> Tensor:
    """Stop once KL(output, output before) falls below ``threshold`` nats (Huginn: 5e-4)."""
    new, old = log_prob_TNV[1:], log_prob_TNV[:-1]
    return _after_first((new.exp() * (new - old)).sum(-1) < threshold)


def by_relative_change(state_TND: Tensor, threshold: float) -> Tensor:
    """Stop once |h' - h| / |h'| falls below ``threshold``."""
    change = (state_TND[1:] - state_TND[:-1]).norm(dim=-1) / state_TND[1:].norm(dim=-1).clamp(min=1e-12)
    return _after_first(change < threshold)


def by_relative_acceleration(state_TND: Tensor, threshold: float) -> Tensor:
    """Stop once |h'' - 2 h' + h| / |h''| falls below ``threshold`` (arXiv 2509.23314)."""
    bend = state_TND[2:] - 2 * state_TND[1:-1] + state_TND[:-2]
    small = bend.norm(dim=-1) / state_TND[2:].norm(dim=-1).clamp(min=1e-12) < threshold
    return _after_first(_after_first_rows(small))


def by_stable_argmax(prediction_TN: Tensor, num_loops: int) -> Tensor:
    """Stop once the likeliest token has stayed the same over ``num_loops`` passes."""
    same_TN = torch.zeros_like(prediction_TN, dtype=torch.int64)
    same_TN[0] = 1
    for loop in range(1, prediction_TN.shape[0]):
        same_TN[loop] = torch.where(prediction_TN[loop] == prediction_TN[loop - 1], same_TN[loop - 1] + 1, 1)
    return first_loop(same_TN >= num_loops)


def _after_first_rows(stop_TN: Tensor) -> Tensor:
    """Conditions that cannot hold yet after the first pass."""
    return torch.cat((torch.zeros_like(stop_TN[:1]), stop_TN))


def _after_first(stop_TN: Tensor) -> Tensor:
    return first_loop(_after_first_rows(stop_TN))
