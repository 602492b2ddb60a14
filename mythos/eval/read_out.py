"""What single tokens show after every pass: loss, choice, and the figures by which an exit rule decides."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from mythos.loop.change import relative_acceleration, relative_change
from mythos.loop.exits.rules import output_divergence
from mythos.model.mythos import Mythos, Unrolled
from mythos.types import IGNORED, Batch


class ReadOut(NamedTuple):
    """N tokens that have a target, after each of T passes; a figure is infinite where a pass cannot have it yet."""

    nll_TN: Tensor
    """Negative log-likelihood of the target in nats, fp32."""
    prediction_TN: Tensor
    """The likeliest token."""
    target_N: Tensor
    relative_change_TN: Tensor
    """|h' - h| / |h'|, from the second pass on."""
    relative_acceleration_TN: Tensor
    """|h'' - 2 h' + h| / |h''|, from the third pass on (arXiv 2509.23314)."""
    output_divergence_TN: Tensor
    """KL(output, output before) in nats, from the second pass on."""
    halting_TN: Tensor | None
    """Probability of leaving after each pass; None when halting is fixed."""

    @property
    def num_loops(self) -> int:
        """T, the passes read."""
        return self.nll_TN.shape[0]

    def at(self, exit_loop_N: Tensor) -> "Exited":
        """What is read when token n leaves after pass ``exit_loop_N[n]`` (0-based)."""
        place_N = torch.arange(len(exit_loop_N), device=exit_loop_N.device)
        is_right_N = self.prediction_TN[exit_loop_N, place_N] == self.target_N
        return Exited(self.nll_TN[exit_loop_N, place_N], is_right_N, exit_loop_N + 1)


class Exited(NamedTuple):
    """N tokens at the passes where they left."""

    nll_N: Tensor
    is_right_N: Tensor
    """Whether the target is the likeliest token."""
    num_loops_N: Tensor


@torch.no_grad()
def read_out(model: Mythos, batch: Batch, num_loops: int, freeze_routing: bool = False) -> ReadOut:
    """Run a batch and read every pass at every position that has a target.

    All passes run for all tokens. After pass t, attention in the coda sees the states of pass t, as in training and
    validation.

    Args:
        freeze_routing: see ``Mythos.unroll``.
    """
    return read_unrolled(model, model.unroll(batch, num_loops, freeze_routing), batch.targets_BS)


@torch.no_grad()
def read_unrolled(model: Mythos, unrolled: Unrolled, targets_BS: Tensor) -> ReadOut:
    """``read_out`` of passes that have run."""
    keep_BS = targets_BS != IGNORED
    target_N = targets_BS[keep_BS]
    num_loops = len(unrolled.states) - 1
    read = [model.before_head(unrolled, loop)[keep_BS] for loop in range(num_loops)]
    chunks = [
        _read_tokens(model, [x_ND[start : start + model.head.chunk_tokens] for x_ND in read], target_C)
        for start, target_C in _chunks(target_N, model.head.chunk_tokens)
    ]
    nll_TN, prediction_TN, divergence_TN = (torch.cat(parts, dim=1) for parts in zip(*chunks, strict=True))
    states = [h_BSD[keep_BS] for h_BSD in unrolled.states[1:]]
    halting_TBS = unrolled.halting_output.halting_TBS
    return ReadOut(
        nll_TN=nll_TN,
        prediction_TN=prediction_TN,
        target_N=target_N,
        relative_change_TN=_changes(states),
        relative_acceleration_TN=_accelerations(states),
        output_divergence_TN=divergence_TN,
        halting_TN=None if halting_TBS is None else halting_TBS[:, keep_BS],
    )


@torch.no_grad()
def read_last(model: Mythos, batch: Batch, num_loops: int) -> Exited:
    """Run a batch and read the last pass only, at every position that has a target."""
    keep_BS = batch.targets_BS != IGNORED
    target_N = batch.targets_BS[keep_BS]
    x_ND = model.before_head(model.unroll(batch, num_loops), num_loops - 1)[keep_BS]
    step = model.head.chunk_tokens
    parts = [_read_tokens(model, [x_ND[start : start + step]], part_C) for start, part_C in _chunks(target_N, step)]
    nll_N, prediction_N = (torch.cat([part[index] for part in parts], dim=1)[0] for index in (0, 1))
    return Exited(nll_N, prediction_N == target_N, torch.full_like(target_N, num_loops))


def _chunks(target_N: Tensor, size: int) -> Iterable[tuple[int, Tensor]]:
    """Stretches of tokens whose logits fit into memory, one empty stretch if there is no token."""
    return [(start, target_N[start : start + size]) for start in range(0, max(len(target_N), 1), size)]


def _read_tokens(model: Mythos, read: list[Tensor], target_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, choice and divergence from the pass before, ``[T, N]`` each; only two passes' logits exist at a time."""
    losses, predictions, divergences = [], [], []
    old_NV = None
    for x_ND in read:
        new_NV = model.head.logits(x_ND[None], model.embedding.weight)[0].float().log_softmax(-1)
        losses.append(-new_NV.gather(-1, target_N[:, None]).squeeze(-1))
        predictions.append(new_NV.argmax(-1))
        if old_NV is None:
            divergences.append(torch.full_like(losses[0], math.inf))
        else:
            divergences.append(output_divergence(new_NV, old_NV))
        old_NV = new_NV
    return torch.stack(losses), torch.stack(predictions), torch.stack(divergences)


def _changes(states: list[Tensor]) -> Tensor:
    never_N = torch.full_like(states[0][:, 0], math.inf, dtype=torch.float32)
    pairs = zip(states[1:], states[:-1], strict=True)
    return torch.stack([never_N, *(relative_change(new_ND, old_ND) for new_ND, old_ND in pairs)])


def _accelerations(states: list[Tensor]) -> Tensor:
    never_N = torch.full_like(states[0][:, 0], math.inf, dtype=torch.float32)
    accelerations = map(relative_acceleration, states[2:], states[1:-1], states[:-2])
    return torch.stack([never_N, never_N, *accelerations][: len(states)])
