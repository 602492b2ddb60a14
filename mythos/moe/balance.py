"""Load balancing without an auxiliary loss: each loop has a selection bias for each expert, moved once a step."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from mythos.config.balance import QuantileBalance, SignBalance
from mythos.config.model import MoEConfig
from mythos.moe.margins import NUM_BINS, margin_quantile


class BalanceRule(Protocol):
    """How the bias moves after a step."""

    num_bins: ClassVar[int]
    """Bins of the margins that the rule reads; 0 if it reads none."""

    def move(self, counts_LRE: Tensor, margins_LREQ: Tensor) -> Tensor:
        """Return the move of each loop's bias, ``[L, R, E]`` fp64, from the step's loads and margins."""
        ...


@dataclass(frozen=True)
class SignRule:
    """A move of fixed size towards the mean load (Wang et al. 2024, arXiv 2408.15664)."""

    rate: float
    num_bins: ClassVar[int] = 0

    def move(self, counts_LRE: Tensor, margins_LREQ: Tensor) -> Tensor:
        load = counts_LRE.double()
        return self.rate * (load.mean(-1, keepdim=True) - load).sign()


@dataclass(frozen=True)
class QuantileRule:
    """A move to where each expert would have been selected by the same share of the step's tokens.

    With the cutoffs of the tokens held fixed, an expert whose bias rises by the K / E quantile of its margins is
    selected by K / E of them. The move has no step size and no gradient, and it takes effect in the next step, so that
    the routing of a token does not depend on its batch.

    Args:
        share: K / E.
        fraction: part of the way to go in one step.
    """

    share: float
    fraction: float = 1.0
    num_bins: ClassVar[int] = NUM_BINS

    def move(self, counts_LRE: Tensor, margins_LREQ: Tensor) -> Tensor:
        return self.fraction * margin_quantile(margins_LREQ, self.share)


def balance_rule(config: SignBalance | QuantileBalance, experts: MoEConfig) -> BalanceRule:
    """Return the configured rule for these experts."""
    match config:
        case SignBalance(rate=rate):
            return SignRule(rate)
        case QuantileBalance(fraction=fraction):
            return QuantileRule(experts.num_active / experts.num_experts, fraction)


def bucket_loops(counts_TLE: Tensor, max_loops: int) -> Tensor:
    """Return the counts for each row of the per-loop tables, ``[L, max_loops, ...]``; later loops add to the last row.

    Args:
        counts_TLE: ``[T, L, ...]``.
    """
    num_loops = counts_TLE.shape[0]
    row_T = torch.arange(num_loops, device=counts_TLE.device).clamp(max=max_loops - 1)
    rows_RLE = counts_TLE.new_zeros(max_loops, *counts_TLE.shape[1:])
    return rows_RLE.index_add(0, row_T, counts_TLE).transpose(0, 1)


def updated_bias(bias_LRE: Tensor, move_LRE: Tensor, counts_LRE: Tensor, copy_last: bool = False) -> Tensor:
    """Return the bias after one step. The moves of a row are centred; rows of loops that did not run stay.

    Args:
        counts_LRE: loads; the loops that ran are the first rows of each layer.
        copy_last: loops that no token ran move as the last loop that ran.
    """
    is_used_LR1 = counts_LRE.sum(-1, keepdim=True) > 0
    move_LRE = (move_LRE - move_LRE.mean(-1, keepdim=True)) * is_used_LR1
    if copy_last:
        last_L1 = is_used_LR1.sum(1) - 1
        row_R = torch.arange(move_LRE.shape[1], device=move_LRE.device)
        move_LRE = move_LRE.take_along_dim(row_R.minimum(last_L1).clamp(min=0)[..., None], dim=1)
    return (bias_LRE + move_LRE).to(bias_LRE.dtype)


def load_violations(counts: Tensor) -> Tensor:
    """Return the largest load over the mean load, minus one, over the experts (last axis); 0 without tokens."""
    load = counts.double()
    return (load.amax(-1) / load.mean(-1).clamp(min=1e-9) - 1).clamp(min=0)


def load_violation(counts: Tensor) -> Tensor:
    """Return ``load_violations`` averaged over the loops and layers that have tokens."""
    is_used = counts.sum(-1) > 0
    return (load_violations(counts) * is_used).sum() / is_used.sum()
