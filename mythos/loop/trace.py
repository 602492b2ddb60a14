"""Figures of the loops, each a pure function of states or expert indices."""

import torch
from torch import Tensor

from mythos.types import ExpertTrace

_TINY = 1e-12


def token_correlation(h_BSD: Tensor) -> Tensor:
    """Mean cosine between the states of two different tokens, ``[B]`` fp32; 0 for a single token.

    (|sum_i u_i|^2 - n) / (n (n - 1)) with unit vectors u: no n x n matrix is made.
    """
    num_tokens = h_BSD.shape[1]
    unit_BSD = torch.nn.functional.normalize(h_BSD.float(), dim=-1, eps=_TINY)
    square_B = unit_BSD.sum(1).square().sum(-1)
    return (square_B - num_tokens) / max(num_tokens * (num_tokens - 1), 1)


def expert_trace(expert_indices_LTNK: Tensor, num_experts: int) -> ExpertTrace:
    """Compare the sets of experts that each token chose in each loop.

    Path diversity is Psi = (1 / K) E |union over loops r <= t of E_r| (Meta, "Scaling Laws for Looped MoE").

    Args:
        expert_indices_LTNK: indices of the chosen experts of each layer; -1 where a token did not run a loop.
    """
    num_loops, num_active = expert_indices_LTNK.shape[1], expert_indices_LTNK.shape[3]
    present_TN = expert_indices_LTNK[0, :, :, 0] >= 0
    num_tokens_T = present_TN.sum(1).clamp(min=1)
    identical, disjoint, diversity = [], [], []
    overlap_TT = torch.zeros(num_loops, num_loops, device=expert_indices_LTNK.device)
    for expert_indices_TNK in expert_indices_LTNK:
        chosen_TNE = _membership(expert_indices_TNK, num_experts)
        with torch.autocast(expert_indices_LTNK.device.type, enabled=False):
            shared_NTT = torch.einsum("tne,sne->nts", chosen_TNE, chosen_TNE)
        overlap_TT += (shared_NTT / (2 * num_active - shared_NTT)).sum(0)
        with_last_TN = torch.nn.functional.pad(shared_NTT.diagonal(-1, 1, 2).T, (0, 0, 1, 0), value=0.5)
        identical.append((with_last_TN == num_active).sum(1) / num_tokens_T)
        disjoint.append(((with_last_TN == 0) & present_TN).sum(1) / num_tokens_T)
        num_seen_TN = chosen_TNE.cumsum_(0).clamp_(max=1).sum(-1) * present_TN
        diversity.append(num_seen_TN.sum(1) / (num_active * num_tokens_T))
    num_pairs_TT = torch.minimum(num_tokens_T[:, None], num_tokens_T) * len(expert_indices_LTNK)
    return ExpertTrace(
        identical_TL=torch.stack(identical, dim=1),
        disjoint_TL=torch.stack(disjoint, dim=1),
        path_diversity_TL=torch.stack(diversity, dim=1),
        overlap_TT=overlap_TT / num_pairs_TT,
    )


def _membership(expert_indices_TNK: Tensor, num_experts: int) -> Tensor:
    """1 where a token chose an expert, ``[T, N, E]`` fp32; a choice of -1 is none."""
    one_more = torch.zeros(*expert_indices_TNK.shape[:2], num_experts + 1, device=expert_indices_TNK.device)
    return one_more.scatter_(2, expert_indices_TNK.long() + 1, 1.0)[..., 1:]
