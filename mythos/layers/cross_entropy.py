"""Projection to the vocabulary and cross-entropy, in chunks, so that only part of the logits is in memory."""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mythos.types import IGNORED


def linear_cross_entropy(
    x_ND: Tensor,
    weight_VD: Tensor,
    target_N: Tensor,
    soft_cap: float | None,
    chunk_tokens: int,
    is_one_of_many: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return negative log-likelihood and log-partition of each token, in nats, fp32.

    With more than ``chunk_tokens`` tokens, or for ``is_one_of_many`` exits, only the logits of one chunk are in memory
    at a time, in forward and backward.

    Returns:
        nll_N, zero where the target is ``IGNORED``, and lse_N.
    """
    if x_ND.shape[0] <= chunk_tokens and not is_one_of_many:
        return _cross_entropy(x_ND, weight_VD, target_N, soft_cap)
    chunks = zip(x_ND.split(chunk_tokens), target_N.split(chunk_tokens), strict=True)
    parts = [
        checkpoint(_cross_entropy, x, weight_VD, target, soft_cap, use_reentrant=False, preserve_rng_state=False)
        for x, target in chunks
    ]
    return torch.cat([nll for nll, _ in parts]), torch.cat([lse for _, lse in parts])


def project(x: Tensor, weight_VD: Tensor, soft_cap: float | None) -> Tensor:
    """Return logits ``[..., V]`` in fp32, squashed to (-soft_cap, soft_cap) if ``soft_cap`` is given."""
    logits = functional.linear(x, weight_VD).float()
    return logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)


def _cross_entropy(x_ND: Tensor, weight_VD: Tensor, target_N: Tensor, soft_cap: float | None) -> tuple[Tensor, Tensor]:
    logits_NV = project(x_ND, weight_VD, soft_cap)
    lse_N = logits_NV.logsumexp(-1)
    target_logit_N = logits_NV.gather(-1, target_N.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (lse_N - target_logit_N).where(target_N != IGNORED, 0.0), lse_N
