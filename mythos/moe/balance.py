"""Balance without an auxiliary loss (Wang et al. 2024, arXiv 2408.15664), one bias for each loop."""

import torch
from torch import Tensor


def bucket_loops(counts_TLE: Tensor, max_loops: int) -> Tensor:
    """Counts by row of the per-loop tables, ``[L, max_loops, E]``; loops past the last row add to it."""
    num_loops = counts_TLE.shape[0]
    row_T = torch.arange(num_loops, device=counts_TLE.device).clamp(max=max_loops - 1)
    rows_RLE = counts_TLE.new_zeros(max_loops, *counts_TLE.shape[1:])
    return rows_RLE.index_add(0, row_T, counts_TLE).transpose(0, 1)


def updated_bias(bias_LRE: Tensor, counts_LRE: Tensor, rate: float, copy_last: bool = False) -> Tensor:
    """The bias after one optimiser step: up by ``rate`` where an expert had less than its share, down where more.

    Moved rows are re-centred to mean zero.

    Args:
        counts_LRE: loads; the loops that ran are the first ones of each layer.
        copy_last: rows of loops that no token ran move as the deepest row that did; otherwise they keep their values.
    """
    load = counts_LRE.double()
    step = rate * (load.mean(-1, keepdim=True) - load).sign()
    step = step - step.mean(-1, keepdim=True)
    if copy_last:
        deepest_L1 = (load.sum(-1) > 0).sum(-1, keepdim=True) - 1
        row_R = torch.arange(load.shape[1], device=load.device)
        step = step.take_along_dim(row_R.minimum(deepest_L1).clamp(min=0)[..., None], dim=1)
    return (bias_LRE + step).to(bias_LRE.dtype)


def load_violations(counts: Tensor) -> Tensor:
    """Largest load over the mean load, minus one, over the experts (last axis); 0 where no token came."""
    load = counts.double()
    return (load.amax(-1) / load.mean(-1).clamp(min=1e-9) - 1).clamp(min=0)


def load_violation(counts: Tensor) -> Tensor:
    """``load_violations`` averaged over the loops and layers that tokens came to."""
    is_used = counts.sum(-1) > 0
    return (load_violations(counts) * is_used).sum() / is_used.sum()
