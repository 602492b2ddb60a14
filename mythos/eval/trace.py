"""Trace one text through a model, by token and loop."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from mythos.data.tokenizer import token_ids
from mythos.eval.attention_pattern import further_part, pattern, replay
from mythos.layers.attention_part import AttentionPart, LayerInputs
from mythos.loop.run import ExpertIndices
from mythos.model.mythos import Mythos, Unrolled
from mythos.report.trace_arrays import TokenTrace
from mythos.types import one_document

NUM_PREDICTIONS = 5
MAX_WEIGHTS = 2**25
"""Maximum number of attention weights in one trace: 134 MB of arrays, and a page that a browser still opens."""


class _Predictions(NamedTuple):
    """The predictions after one loop, on the host."""

    top_token_SR: np.ndarray
    top_prob_SR: np.ndarray
    next_prob_S: np.ndarray
    entropy_S: np.ndarray


def trace_text(
    model: Mythos,
    tokenizer: Tokenizer,
    prompt: str,
    num_loops: int,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> TokenTrace:
    """Trace one text.

    Args:
        tokenizer: opens each text with the separator; see ``data.tokenizer.open_documents``.
        layers: 0-based core layers whose attention is traced; None for all.
        heads: heads whose attention is traced in each of these layers; None for all.

    Raises:
        ValueError: a layer or head does not exist, or the text is empty or too long for the model or for its attention.
    """
    if not prompt:
        raise ValueError("prompt: 0 characters were given; give at least 1.")
    layers = _chosen("layers", layers, model.config.num_core_layers, "core layers")
    heads = _chosen("heads", heads, model.config.attention.num_heads, "heads")
    tokens = token_ids(tokenizer, prompt)
    num_sources = 1 if _further_part(model) is None else 2
    _check_size(len(tokens), model.config.max_seq_len, num_sources * num_loops * len(layers) * len(heads))

    def text_of(token: int) -> str:
        return tokenizer.decode([token], skip_special_tokens=False)

    return trace(model, tokens, num_loops, layers, heads, text_of)


@torch.no_grad()
def trace(
    model: Mythos,
    tokens: Sequence[int],
    num_loops: int,
    layers: Sequence[int],
    heads: Sequence[int],
    text_of: Callable[[int], str],
) -> TokenTrace:
    """Run one text and trace every token after every loop.

    The state after every loop goes through coda, norm and head, as if the model stopped there (a logit lens over
    loops). With ACT, the state of loop t is the weighted mean that t + 1 loops give.

    Args:
        tokens: between one and ``max_seq_len`` tokens of one document.
        layers: 0-based core layers whose attention is traced.
        heads: heads whose attention is traced in each of these layers.
        text_of: returns the text of a token id.
    """
    token_S = torch.tensor(tokens, device=model.embedding.weight.device)
    unrolled = model.unroll(one_document(token_S[None]), num_loops, watch=lambda before_BSD, after_BSD: before_BSD)
    predictions = [_predict(model, model.before_head(unrolled, loop), token_S) for loop in range(num_loops)]
    top_token_TSR, top_prob_TSR, next_prob_TS, entropy_TS = map(np.stack, zip(*predictions, strict=True))
    word_ids = np.unique(np.concatenate([np.array(tokens), top_token_TSR.ravel()]))
    state_TSD = torch.cat(unrolled.states).float()
    halting_TBS = unrolled.halting_output.halting_TBS
    change_TS = (state_TSD[1:] - state_TSD[:-1]).norm(dim=-1) / state_TSD[1:].norm(dim=-1).clamp(min=1e-12)
    attention_TCHSS, further_TCHSS = _attention(model, unrolled, layers, heads)
    return TokenTrace(
        token_S=np.array(tokens),
        state_norm_TS=(state_TSD[1:].norm(dim=-1) / state_TSD.shape[-1] ** 0.5).cpu().numpy(),
        relative_change_TS=change_TS.cpu().numpy(),
        top_token_TSR=top_token_TSR,
        top_prob_TSR=top_prob_TSR,
        next_prob_TS=next_prob_TS,
        entropy_TS=entropy_TS,
        halting_TS=None if halting_TBS is None else halting_TBS[:, 0].float().cpu().numpy(),
        expert_TLSK=_experts(unrolled.expert_indices),
        attention_TCHSS=attention_TCHSS,
        layer_C=np.array(sorted(set(layers)), dtype=np.int64),
        head_H=np.array(heads, dtype=np.int64),
        word_id_W=word_ids,
        word_W=np.array([text_of(int(word_id)) for word_id in word_ids]),
        further_attention_TCHSS=further_TCHSS,
        further_gate_CH=_further_gates(model, layers, heads),
    )


def _chosen(name: str, given: Sequence[int] | None, count: int, what: str) -> list[int]:
    """The requested indices, ascending and once each, or all of them."""
    if given is None:
        return list(range(count))
    for index in given:
        if not 0 <= index < count:
            raise ValueError(
                f"{name}: {index} was given, but the model has {count} {what}; give numbers from 0 to {count - 1}."
            )
    return sorted(set(given))


def _check_size(num_tokens: int, limit: int, num_maps: int) -> None:
    if num_tokens > limit:
        raise ValueError(
            f"prompt: it takes {num_tokens} tokens, including the one that opens the document, more than the "
            f"model's {limit}; shorten it."
        )
    if (num_weights := num_maps * num_tokens**2) > MAX_WEIGHTS:
        raise ValueError(
            f"prompt: it takes {num_tokens} tokens, which makes {num_maps} attention maps of {num_weights:,} weights "
            f"in total, more than {MAX_WEIGHTS:,}; shorten it, or choose fewer loops, layers or heads."
        )


def _predict(model: Mythos, x_BSD: Tensor, token_S: Tensor) -> _Predictions:
    """Predictions of the head from the coda's output after one loop."""
    log_prob_SV = model.head.logits(x_BSD, model.embedding.weight)[0].float().log_softmax(-1)
    top = log_prob_SV.topk(min(NUM_PREDICTIONS, log_prob_SV.shape[-1]), dim=-1)
    next_S = log_prob_SV.new_full((len(token_S),), float("nan"))
    next_S[:-1] = log_prob_SV[:-1].gather(-1, token_S[1:, None]).squeeze(-1).exp()
    entropy_S = torch.special.entr(log_prob_SV.exp()).sum(-1)
    return _Predictions(*(part.cpu().numpy() for part in (top.indices, top.values.exp(), next_S, entropy_S)))


def _experts(expert_indices: list[ExpertIndices]) -> np.ndarray | None:
    """Expert indices of every loop and layer, ``[T, L, S, K]``; None for a dense core."""
    loops = [[each.long() for each in of_layers if each is not None] for of_layers in expert_indices]
    return torch.stack([torch.stack(of_layers) for of_layers in loops]).cpu().numpy() if loops[0] else None


def _attention(
    model: Mythos, unrolled: Unrolled, layers: Sequence[int], heads: Sequence[int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Attention of every loop, requested layer and head, ``[T, C, H, S, S]``; empty when no layer is requested.

    The second array is that of the further attention which a loop part adds, zero in the first loop; None without one.
    """
    num_loops, has_further = len(unrolled.watched), _further_part(model) is not None
    own, further = [], []
    for layer in sorted(set(layers)):
        block = model.core.blocks[layer]
        attention = block.get_submodule("attention")
        carry = model.core.attention_parts()[layer].start(unrolled.watched[0][layer])
        for loop in range(num_loops):
            x_BSD = block.get_submodule("attention_norm")(unrolled.watched[loop][layer])
            row, index = (
                torch.tensor(each, device=x_BSD.device) for each in (min(loop, model.core.max_loops - 1), loop)
            )
            replayed = replay(attention, x_BSD, unrolled.rotation, LayerInputs(row, carry, index))
            carry = replayed.carry
            own.append(pattern(replayed.heads, None)[0, list(heads)].cpu())  # one document
            if replayed.further is not None:
                further.append(pattern(replayed.further, None)[0, list(heads)].cpu() * bool(loop))
    if not own:
        empty = np.zeros((num_loops, 0, len(heads), 0, 0), dtype=np.float32)
        return empty, empty if has_further else None
    return _by_loop(own, num_loops), _by_loop(further, num_loops) if further else None


def _by_loop(patterns: list[Tensor], num_loops: int) -> np.ndarray:
    """Patterns ``[H, S, S]`` of all loops of one layer after another, as ``[T, C, H, S, S]``."""
    return torch.stack(patterns).unflatten(0, (-1, num_loops)).transpose(0, 1).contiguous().numpy()


def _further_part(model: Mythos) -> AttentionPart | None:
    """The part of the first core layer that adds a second attention."""
    return further_part(model.core.blocks[0].get_submodule("attention"))


def _further_gates(model: Mythos, layers: Sequence[int], heads: Sequence[int]) -> np.ndarray | None:
    """Factor of what the second attention of each requested layer and head adds, ``[C, H]``; None without one."""
    parts = [further_part(model.core.blocks[layer].get_submodule("attention")) for layer in sorted(set(layers))]
    gates = [
        gates_H.float()[list(heads)] for part in parts if part is not None and (gates_H := part.gates()) is not None
    ]
    return torch.stack(gates).cpu().numpy() if gates else None
