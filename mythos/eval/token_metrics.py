"""Metrics of single tokens after every loop: loss, prediction, and the quantities that exit rules compare."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from mythos.loop.change import relative_change
from mythos.model.mythos import Mythos, Unrolled
from mythos.types import IGNORED, Batch

_TINY = 1e-12


class TokenMetrics(NamedTuple):
    """Metrics of N tokens that have a target, after each of T loops; infinite where too few loops have run."""

    nll_TN: Tensor
    """Negative log-likelihood of the target in nats, fp32."""
    prediction_TN: Tensor
    """The likeliest token."""
    target_N: Tensor
    relative_change_TN: Tensor
    """|h' - h| / |h'|, from the second loop on."""
    relative_acceleration_TN: Tensor
    """|h'' - 2 h' + h| / |h''|, from the third loop on (arXiv 2509.23314)."""
    output_divergence_TN: Tensor
    """KL divergence of the output from that of the loop before, in nats, from the second loop on."""
    halting_TN: Tensor | None
    """Probability of exiting after each loop; None when halting is fixed."""

    @property
    def num_loops(self) -> int:
        """Number of loops T."""
        return self.nll_TN.shape[0]

    def at(self, exit_loop_N: Tensor) -> "TokenScores":
        """Scores when token n exits after loop ``exit_loop_N[n]`` (0-based)."""
        index_N = torch.arange(len(exit_loop_N), device=exit_loop_N.device)
        is_correct_N = self.prediction_TN[exit_loop_N, index_N] == self.target_N
        return TokenScores(self.nll_TN[exit_loop_N, index_N], is_correct_N, exit_loop_N + 1)


class TokenScores(NamedTuple):
    """Scores of N tokens, each after the loop at which it exits."""

    nll_N: Tensor
    """Negative log-likelihood of the target in nats."""
    is_correct_N: Tensor
    """Whether the prediction is the target."""
    num_loops_N: Tensor
    """Number of loops that the token ran."""


@torch.no_grad()
def token_metrics(model: Mythos, batch: Batch, num_loops: int, freeze_routing: bool = False) -> TokenMetrics:
    """Run a batch and return the metrics after every loop, at every position that has a target.

    All loops run for all tokens. After loop t, attention in the coda sees the states of loop t, as in training and
    validation.

    Args:
        freeze_routing: see ``Mythos.unroll``.
    """
    return unrolled_metrics(model, model.unroll(batch, num_loops, freeze_routing), batch.targets_BS)


@torch.no_grad()
def unrolled_metrics(model: Mythos, unrolled: Unrolled, targets_BS: Tensor) -> TokenMetrics:
    """``token_metrics`` of loops that have run already."""
    keep_BS = targets_BS != IGNORED
    target_N = targets_BS[keep_BS]
    num_loops = len(unrolled.states) - 1
    outputs = [model.before_head(unrolled, loop)[keep_BS] for loop in range(num_loops)]
    chunks = [
        _output_metrics(model, [x_ND[start : start + model.head.chunk_tokens] for x_ND in outputs], target_C)
        for start, target_C in _chunks(target_N, model.head.chunk_tokens)
    ]
    nll_TN, prediction_TN, divergence_TN = (torch.cat(parts, dim=1) for parts in zip(*chunks, strict=True))
    states = [h_BSD[keep_BS] for h_BSD in unrolled.states[1:]]
    halting_TBS = unrolled.halting_output.halting_TBS
    return TokenMetrics(
        nll_TN=nll_TN,
        prediction_TN=prediction_TN,
        target_N=target_N,
        relative_change_TN=_relative_changes(states),
        relative_acceleration_TN=_relative_accelerations(states),
        output_divergence_TN=divergence_TN,
        halting_TN=None if halting_TBS is None else halting_TBS[:, keep_BS],
    )


@torch.no_grad()
def last_loop_scores(model: Mythos, batch: Batch, num_loops: int) -> TokenScores:
    """Run a batch and return the scores after the last loop, at every position that has a target."""
    keep_BS = batch.targets_BS != IGNORED
    target_N = batch.targets_BS[keep_BS]
    x_ND = model.before_head(model.unroll(batch, num_loops), num_loops - 1)[keep_BS]
    step = model.head.chunk_tokens
    parts = [_output_metrics(model, [x_ND[start : start + step]], part_C) for start, part_C in _chunks(target_N, step)]
    nll_N, prediction_N = (torch.cat([part[index] for part in parts], dim=1)[0] for index in (0, 1))
    return TokenScores(nll_N, prediction_N == target_N, torch.full_like(target_N, num_loops))


def _chunks(target_N: Tensor, size: int) -> Iterable[tuple[int, Tensor]]:
    """Chunks of tokens whose logits fit into memory, with their offsets; one empty chunk if there is no token."""
    return [(start, target_N[start : start + size]) for start in range(0, max(len(target_N), 1), size)]


def _output_metrics(model: Mythos, outputs: list[Tensor], target_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, prediction and divergence from the loop before, ``[T, N]`` each.

    The logits of at most two loops are in memory at a time.
    """
    losses, predictions, divergences = [], [], []
    old_NV = None
    for x_ND in outputs:
        new_NV = model.head.logits(x_ND[None], model.embedding.weight)[0].float().log_softmax(-1)
        losses.append(-new_NV.gather(-1, target_N[:, None]).squeeze(-1))
        predictions.append(new_NV.argmax(-1))
        if old_NV is None:
            divergences.append(torch.full_like(losses[0], math.inf))
        else:
            divergences.append((new_NV.exp() * (new_NV - old_NV)).sum(-1))
        old_NV = new_NV
    return torch.stack(losses), torch.stack(predictions), torch.stack(divergences)


def _relative_changes(states: list[Tensor]) -> Tensor:
    never_N = torch.full_like(states[0][:, 0], math.inf, dtype=torch.float32)
    pairs = zip(states[1:], states[:-1], strict=True)
    return torch.stack([never_N, *(relative_change(new_ND, old_ND) for new_ND, old_ND in pairs)])


def _relative_accelerations(states: list[Tensor]) -> Tensor:
    never_N = torch.full_like(states[0][:, 0], math.inf, dtype=torch.float32)
    accelerations = []
    for old_ND, mid_ND, new_ND in zip(states[:-2], states[1:-1], states[2:], strict=True):
        acceleration_N = (new_ND.float() - 2 * mid_ND.float() + old_ND.float()).norm(dim=-1)
        accelerations.append(acceleration_N / new_ND.float().norm(dim=-1).clamp(min=_TINY))
    return torch.stack([never_N, never_N, *accelerations][: len(states)])
