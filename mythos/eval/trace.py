"""What a model does with one text, token by token and pass by pass. Forward hooks look on; the model runs as ever."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mythos.eval.attention_pattern import heads_of, pattern
from mythos.model.mythos import Mythos
from mythos.report.trace_arrays import TokenTrace
from mythos.types import IGNORED, Batch

NUM_PREDICTIONS = 5


class _Seen(NamedTuple):
    """What the hooks caught, in the order of the passes and of the layers in them."""

    states: list[Tensor]
    """The state before each pass."""
    attention_calls: list[tuple[nn.Module, tuple[Any, ...]]]
    """Attention layers with their inputs, for the layers that were asked for."""
    block_calls: list[tuple[Any, ...]]
    """Inputs of each core block."""
    expert_indices: list[Tensor | None]
    """Experts that each core block chose."""


class _Reading(NamedTuple):
    """The predictions after one pass, on the host."""

    top_token_SR: np.ndarray
    top_prob_SR: np.ndarray
    next_prob_S: np.ndarray
    entropy_S: np.ndarray


@torch.no_grad()
def trace(
    model: Mythos,
    tokens: Sequence[int],
    num_loops: int,
    layers: Sequence[int],
    heads: Sequence[int],
    text_of: Callable[[int], str],
) -> TokenTrace:
    """Run one text at a depth and keep what every pass made of every token.

    The state after every pass is read through coda, norm and head, as if the model stopped there (a logit lens over
    passes). With ACT, the state read after pass t is the weighted mean that a depth of t + 1 gives.

    Args:
        tokens: at least one, at most ``max_seq_len``; all of one document.
        layers: 0-based core layers whose attention is kept.
        heads: heads kept of each.
        text_of: the text of a token id.
    """
    token_S = torch.tensor(tokens, device=model.embedding.weight.device)
    with _watching(model, layers) as seen:
        output = model(_batch(token_S), num_loops, 0)
    states = [*seen.states, output.state_BSD]
    halting_output = model.halting(states[1:], tuple(range(num_loops)))
    _, rotation, mask, *_ = seen.block_calls[0]
    readings = [_read(model, h_BSD, rotation, mask, token_S) for h_BSD in halting_output.states]
    top_token_TSR, top_prob_TSR, next_prob_TS, entropy_TS = map(np.stack, zip(*readings, strict=True))
    word_ids = np.unique(np.concatenate([np.array(tokens), top_token_TSR.ravel()]))
    state_TSD = torch.cat(states).float()
    change_TS = (state_TSD[1:] - state_TSD[:-1]).norm(dim=-1) / state_TSD[1:].norm(dim=-1).clamp(min=1e-12)
    return TokenTrace(
        token_S=np.array(tokens),
        state_norm_TS=(state_TSD[1:].norm(dim=-1) / state_TSD.shape[-1] ** 0.5).cpu().numpy(),
        relative_change_TS=change_TS.cpu().numpy(),
        top_token_TSR=top_token_TSR,
        top_prob_TSR=top_prob_TSR,
        next_prob_TS=next_prob_TS,
        entropy_TS=entropy_TS,
        halting_TS=None
        if halting_output.halting_TBS is None
        else halting_output.halting_TBS[:, 0].float().cpu().numpy(),
        expert_TLSK=_experts(seen.expert_indices, num_loops),
        attention_TCHSS=_attention(seen.attention_calls, num_loops, heads),
        layer_C=np.array(sorted(set(layers)), dtype=np.int64),
        head_H=np.array(heads, dtype=np.int64),
        word_id_W=word_ids,
        word_W=np.array([text_of(int(word_id)) for word_id in word_ids]),
    )


def _batch(token_S: Tensor) -> Batch:
    """One window of one document."""
    target_S = torch.cat((token_S[1:], token_S.new_full((1,), IGNORED)))
    return Batch(
        tokens_BS=token_S[None],
        targets_BS=target_S[None],
        positions_BS=torch.arange(len(token_S), device=token_S.device)[None],
        document_ids_BS=None,
        sample_ids_B=token_S.new_zeros(1),
        num_targets=torch.tensor(float(len(token_S))),
        num_sequences=torch.tensor(1.0),
    )


@contextmanager
def _watching(model: Mythos, layers: Sequence[int]) -> Iterator[_Seen]:
    """Catch the core's states, block inputs and expert choices while the block of the ``with`` runs."""
    seen = _Seen([], [], [], [])

    def keep_state(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.states.append(inputs[0])

    def keep_attention(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.attention_calls.append((layer, inputs))

    def keep_block(_: nn.Module, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        seen.block_calls.append(inputs)
        seen.expert_indices.append(output[2])

    handles = [model.core.injection.register_forward_pre_hook(keep_state)]
    for index, block in enumerate(model.core.blocks):
        handles.append(block.register_forward_hook(keep_block))
        if index in layers:
            attention = block.get_submodule("attention")
            handles.append(attention.register_forward_pre_hook(keep_attention))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _read(model: Mythos, state_BSD: Tensor, rotation: Any, mask: Tensor | None, token_S: Tensor) -> _Reading:
    """Coda, norm and head on the state of one pass."""
    x_BSD = state_BSD
    for block in model.coda:
        x_BSD, _, _ = block(x_BSD, rotation, mask)
    log_prob_SV = model.head.logits(x_BSD, model.embedding.weight)[0].float().log_softmax(-1)
    top = log_prob_SV.topk(min(NUM_PREDICTIONS, log_prob_SV.shape[-1]), dim=-1)
    next_S = log_prob_SV.new_full((len(token_S),), float("nan"))
    next_S[:-1] = log_prob_SV[:-1].gather(-1, token_S[1:, None]).squeeze(-1).exp()
    entropy_S = torch.special.entr(log_prob_SV.exp()).sum(-1)
    return _Reading(*(part.cpu().numpy() for part in (top.indices, top.values.exp(), next_S, entropy_S)))


def _experts(expert_indices: list[Tensor | None], num_loops: int) -> np.ndarray | None:
    """ExpertIndices of every pass and layer, ``[T, L, S, K]``."""
    known = [expert_indices_NK.long() for expert_indices_NK in expert_indices if expert_indices_NK is not None]
    if not known:
        return None
    return torch.stack(known).unflatten(0, (num_loops, -1)).cpu().numpy()


def _attention(calls: list[tuple[nn.Module, tuple[Any, ...]]], num_loops: int, heads: Sequence[int]) -> np.ndarray:
    """Attention of every pass, chosen layer and chosen head, ``[T, C, H, S, S]``; empty when no layer was chosen."""
    patterns = []
    for layer, (x_BSD, rotation, mask, *_) in calls:
        pattern_BHSS = pattern(heads_of(layer, x_BSD, rotation), mask)
        patterns.append(pattern_BHSS[0, list(heads)].cpu())
    if not patterns:
        return np.zeros((num_loops, 0, len(heads), 0, 0), dtype=np.float32)
    return torch.stack(patterns).unflatten(0, (num_loops, -1)).numpy()
