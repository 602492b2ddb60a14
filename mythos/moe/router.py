"""Routing of tokens to experts, and its statistics."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mythos.config.model import MoEConfig
from mythos.moe import fused_router
from mythos.moe.margins import count_margins
from mythos.types import RouterStats

_LARGEST_SMALL_LOGIT = -20.0
"""Below it sigmoid(x) equals exp(x) in fp32."""


class Routing(NamedTuple):
    """Assignment of each of N tokens to K experts."""

    weight_NK: Tensor
    """Factor of each selected expert's output, fp32."""
    expert_indices_NK: Tensor
    """Indices of the selected experts, int64."""
    share_NE: Tensor
    """Scores of all experts over their sum, fp32."""


class Router(nn.Module):
    """A linear gate with scores in fp32, independent of the autocast dtype."""

    num_bins: int = 0
    """Set from outside: bins of the margins that training counts; 0 counts none."""

    def __init__(self, config: MoEConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.gate = nn.Linear(dim, config.num_experts, bias=False)

    @property
    def weight(self) -> Tensor:
        """The gate's ``[E, D]`` matrix, under the name that expert-parallel conversion uses."""
        return self.gate.weight

    def forward(
        self, x_BSD: Tensor, bias_E: Tensor, expert_indices_NK: Tensor | None = None, change: Tensor | None = None
    ) -> tuple[Routing, RouterStats]:
        """Route every token; ``bias_E`` affects the selection of experts but not their weights.

        Args:
            bias_E: one bias for all sequences, or ``[B, E]`` with one for each sequence.
            expert_indices_NK: experts to use, instead of recomputed routing.
            change: added to the matrix, fp32 ``[E, D]``, or ``[B, E, D]`` with one for each sequence.
        """
        if bias_E.dim() == 2:
            bias_E = bias_E.repeat_interleave(x_BSD.shape[1], dim=0)
        with torch.autocast(x_BSD.device.type, enabled=False):
            x_ND, config = x_BSD.flatten(0, 1), self.config
            gate_ED = self.gate.weight if change is None else self.gate.weight + change
            if fused_router.is_available(x_ND, gate_ED):
                selects = expert_indices_NK is None
                is_sigmoid = config.score == "sigmoid"
                logits_NE, selected_NK = fused_router.route(
                    x_ND, gate_ED, bias_E, config.num_active, is_sigmoid, selects
                )
                expert_indices_NK = selected_NK if selects else expert_indices_NK
            else:
                logits_NE = _products(x_BSD.float(), gate_ED.float())
            routing = route(logits_NE, bias_E, config, expert_indices_NK)
            logits_BSE = logits_NE.view(*x_BSD.shape[:2], -1)
            return routing, observe(logits_BSE, routing, self._margins(logits_BSE, bias_E))

    def _margins(self, logits_BSE: Tensor, bias_E: Tensor) -> Tensor:
        """Count the margins of selection in training, ``[E, Q]``."""
        if not (self.training and self.num_bins):
            return logits_BSE.new_zeros(logits_BSE.shape[-1], 0, dtype=torch.int32)
        selection_NE = scores(logits_BSE.detach().flatten(0, 1), self.config) + bias_E
        return count_margins(selection_NE.view_as(logits_BSE), self.config.num_active, self.num_bins)


def _products(x_BSD: Tensor, gate_ED: Tensor) -> Tensor:
    """Return logits ``[N, E]`` from one matrix for all sequences or from ``[B, E, D]``."""
    if gate_ED.dim() == 3:
        return torch.bmm(x_BSD, gate_ED.mT).flatten(0, 1)
    return functional.linear(x_BSD.flatten(0, 1), gate_ED)


def route(logits_NE: Tensor, bias_E: Tensor, config: MoEConfig, expert_indices_NK: Tensor | None = None) -> Routing:
    """Select the top-k of score + bias, or given experts, and weight them by the scores alone (arXiv 2408.15664).

    Args:
        bias_E: added to the scores for the selection; ``[E]``, or ``[N, E]`` with one for each token.
    """
    score_NE = scores(logits_NE, config)
    if expert_indices_NK is None:
        expert_indices_NK = (score_NE.detach() + bias_E).topk(config.num_active, dim=-1).indices
    else:
        expert_indices_NK = expert_indices_NK.long()
    if config.normalize_weights:
        weight_NK = _shares(logits_NE.gather(-1, expert_indices_NK), config)
    else:
        weight_NK = score_NE.gather(-1, expert_indices_NK)
    share_NE = score_NE if config.score == "softmax" else _shares(logits_NE, config)
    return Routing(weight_NK * config.weight_scale, expert_indices_NK, share_NE)


def scores(logits_NE: Tensor, config: MoEConfig) -> Tensor:
    """Return the scores of all experts."""
    return logits_NE.sigmoid() if config.score == "sigmoid" else logits_NE.softmax(-1)


def _shares(logits_N: Tensor, config: MoEConfig) -> Tensor:
    """Return scores over their sum, over the last axis, also where all scores underflow."""
    if config.score == "softmax":
        return logits_N.softmax(-1)
    # Where all scores are small, they are exponentials of the logits, whose ratios a common shift does not change.
    shift_N = (_LARGEST_SMALL_LOGIT - logits_N.detach().amax(-1, keepdim=True)).clamp(min=0)
    score_N = (logits_N + shift_N).sigmoid()
    return score_N / score_N.sum(-1, keepdim=True)


def observe(logits_BSE: Tensor, routing: Routing, margins_EQ: Tensor) -> RouterStats:
    """Compute loads, penalties and entropy of one routing, as sums over tokens or sequences; margins are passed on."""
    batch, _, num_experts = logits_BSE.shape
    expert_BM = routing.expert_indices_NK.view(batch, -1)
    counts_BE = torch.zeros(batch, num_experts, dtype=torch.int64, device=expert_BM.device)
    counts_BE.scatter_add_(1, expert_BM, torch.ones_like(expert_BM))
    share_BSE = routing.share_NE.view_as(logits_BSE)
    load_BE = counts_BE * (num_experts / expert_BM.shape[1])
    return RouterStats(
        counts_E=counts_BE.sum(0),
        z_loss=logits_BSE.logsumexp(-1).square().sum(),
        balance_loss=(load_BE * share_BSE.mean(1)).sum(),
        entropy=torch.special.entr(share_BSE.detach()).sum(),
        margins_EQ=margins_EQ,
    )
