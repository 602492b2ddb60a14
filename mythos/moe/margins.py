"""Margins of selection: how much higher an expert's score would have to be for a token to be routed to it."""

from typing import Final

import torch
from torch import Tensor

NUM_BINS: Final = 128
MAX_TOKENS: Final = 512
"""Largest number of tokens of a sequence that are counted: evenly spaced, so that the counts of a step do not depend on
how its sequences are divided into micro-batches and ranks."""
_LIMIT: Final = 2.0
"""Largest margin of scores between 0 and 1 whose biases differ by at most 1; the outermost bins hold those beyond."""


@torch.no_grad()
def count_margins(selection_BSE: Tensor, num_active: int, num_bins: int = NUM_BINS) -> Tensor:
    """Count the margins of each expert, ``[E, Q]`` int32.

    The margin of an expert is the (K+1)-th largest score + bias of the token, minus its own. It is negative for the
    selected experts. Bins are narrow near zero and wide far from it: bin q holds the margins whose signed square
    root, relative to that of the limit, is in the q-th of Q equal parts of -1 .. 1.

    Args:
        selection_BSE: score + bias.
        num_active: K, less than E.
    """
    num_tokens, num_experts = selection_BSE.shape[1:]
    selection_NE = selection_BSE[:, :: -(-num_tokens // MAX_TOKENS)].flatten(0, 1)
    margin_NE = selection_NE.topk(num_active + 1, dim=-1).values[:, -1:] - selection_NE
    root_NE = margin_NE.sign() * (margin_NE.abs() / _LIMIT).sqrt()
    bin_NE = ((root_NE + 1) * (num_bins / 2)).long().clamp(0, num_bins - 1)
    cell_M = (bin_NE + num_bins * torch.arange(num_experts, device=bin_NE.device)).flatten()
    counts = torch.zeros(num_experts * num_bins, dtype=torch.int32, device=cell_M.device)
    return counts.scatter_add_(0, cell_M, torch.ones_like(cell_M, dtype=torch.int32)).view(num_experts, num_bins)


def margin_quantile(counts_EQ: Tensor, share: float) -> Tensor:
    """Return the margin below which a share of an expert's tokens lie, interpolated within its bin, ``[..., E]`` fp64.

    Args:
        counts_EQ: ``[..., E, Q]``; an expert without tokens has quantile zero.
        share: between 0 and 1.
    """
    cumulative_EQ = counts_EQ.cumsum(-1).double()
    target_E1 = share * cumulative_EQ[..., -1:]
    bin_E1 = torch.searchsorted(cumulative_EQ, target_E1).clamp(max=counts_EQ.shape[-1] - 1)
    in_bin_E1 = counts_EQ.gather(-1, bin_E1).double()
    before_E1 = cumulative_EQ.gather(-1, bin_E1) - in_bin_E1
    edge_Q = bin_edges(counts_EQ.shape[-1], counts_EQ.device)
    low_E1, high_E1 = edge_Q[bin_E1], edge_Q[bin_E1 + 1]
    quantile_E1 = low_E1 + (high_E1 - low_E1) * (target_E1 - before_E1) / in_bin_E1.clamp(min=1)
    return quantile_E1.where(cumulative_EQ[..., -1:] > 0, 0.0).squeeze(-1)


def bin_edges(num_bins: int, device: torch.device) -> Tensor:
    """Return the edges of the bins, ``[Q + 1]`` fp64."""
    root_Q = torch.linspace(-1, 1, num_bins + 1, dtype=torch.float64, device=device)
    return _LIMIT * root_Q.sign() * root_Q.square()
