"""Load balancing without an auxiliary loss (Wang et al. 2024, arXiv 2408.15664), with one bias for each loop."""

import torch
from torch import Tensor


def bucket_loops(counts_TLE: Tensor, max_loops: int) -> Tensor:
    """Return the counts for each row of the per-loop tables, ``[L, max_loops, E]``; later loops add to the last row."""
    num_loops = counts_TLE.shape[0]
    row_T = torch.arange(num_loops, device=counts_TLE.device).clamp(max=max_loops - 1)
    rows_RLE = counts_TLE.new_zeros(max_loops, *counts_TLE.shape[1:])
    return rows_RLE.index_add(0, row_T, counts_TLE).transpose(0, 1)


def updated_bias(bias_LRE: Tensor, counts_LRE: Tensor, rate: float, copy_last: bool = False) -> Tensor:
    """Return the bias after one step: raised by ``rate`` for underloaded experts and lowered for overloaded ones.

    The updates of a row are centred, so that they have mean zero.

    Args:
        counts_LRE: loads; the loops that ran are the first rows of each layer.
        copy_last: loops that no token ran get the update of the last loop that ran; otherwise their rows do not change.
    """
    load = counts_LRE.double()
    step = rate * (load.mean(-1, keepdim=True) - load).sign()
    step = step - step.mean(-1, keepdim=True)
    if copy_last:
        last_L1 = (load.sum(-1) > 0).sum(-1, keepdim=True) - 1
        row_R = torch.arange(load.shape[1], device=load.device)
        step = step.take_along_dim(row_R.minimum(last_L1).clamp(min=0)[..., None], dim=1)
    return (bias_LRE + step).to(bias_LRE.dtype)


def load_violations(counts: Tensor) -> Tensor:
    """Return the largest load over the mean load, minus one, over the experts (last axis); 0 without tokens."""
    load = counts.double()
    return (load.amax(-1) / load.mean(-1).clamp(min=1e-9) - 1).clamp(min=0)


def load_violation(counts: Tensor) -> Tensor:
    """Return ``load_violations`` averaged over the loops and layers that have tokens."""
    is_used = counts.sum(-1) > 0
    return (load_violations(counts) * is_used).sum() / is_used.sum()
