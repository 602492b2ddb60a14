"""Explicit attention weights, which the fast kernels never store, computed from a layer's own projections."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.attention_part import NO_INPUTS, AttentionPart, AttentionParts, Carry, LayerInputs
from mythos.layers.mask import Mask, causal_mask
from mythos.layers.mla import LatentAttention
from mythos.layers.rope import Rotation, rotate


class Heads(NamedTuple):
    """Queries, keys and values of a layer; each key and value is repeated for every query head that shares it."""

    query_BHSP: Tensor
    key_BHSP: Tensor
    value_BHSP: Tensor
    """The head width of values can differ from that of queries and keys."""


def pattern(heads: Heads, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(P)) over the keys, ``[B, H, queries, keys]``, fp32; zero where the mask forbids.

    Args:
        mask: boolean and causal, true where attention is allowed; None for plain causal attention.
    """
    query_BHSP, key_BHSP = heads.query_BHSP.float(), heads.key_BHSP.float()
    score_BHSS = query_BHSP @ key_BHSP.transpose(-1, -2) * query_BHSP.shape[-1] ** -0.5
    if mask is None:
        mask = causal_mask(score_BHSS.shape[-2], score_BHSS.shape[-1], score_BHSS.device)
    return score_BHSS.masked_fill(~mask, float("-inf")).softmax(-1)


def heads_of(attention: nn.Module, x_BSD: Tensor, rotation: Rotation, inputs: LayerInputs = NO_INPUTS) -> Heads:
    """Queries, keys and values of an attention layer for its (normed) input."""
    query_BSHP, written = _projected(attention, x_BSD, rotation, inputs)
    return _with_memory(attention, query_BSHP, written)


class Replayed(NamedTuple):
    """What one loop of a layer attends to."""

    heads: Heads
    further: Heads | None
    """Of the second attention that a loop part adds; None without one."""
    carry: Carry


def replay(attention: nn.Module, x_BSD: Tensor, rotation: Rotation, inputs: LayerInputs) -> Replayed:
    """Repeat one loop of a layer with the parts inside its attention."""
    query_BSHP, written = _projected(attention, x_BSD, rotation, inputs)
    heads, further = _with_memory(attention, query_BSHP, written), []

    def record(memory: tuple[Tensor, ...], mask: Mask | None) -> Tensor:
        further.append(_with_memory(attention, query_BSHP, memory))
        return torch.zeros_like(heads.value_BHSP).transpose(1, 2)

    part: AttentionPart = attention.get_submodule("part")  # type: ignore[assignment]
    for each, own in part.each(inputs) if isinstance(part, AttentionParts) else ():
        if each is further_part(attention):
            each.attend_further(torch.zeros_like(heads.value_BHSP).transpose(1, 2), record, None, own)
    return Replayed(heads, further[0] if further else None, part.remember(written, inputs))


def further_part(attention: nn.Module) -> AttentionPart | None:
    """The first part of a layer that adds a second attention over tokens."""
    parts = attention.get_submodule("part")
    for part in parts.parts if isinstance(parts, AttentionParts) else ():
        assert isinstance(part, AttentionPart)
        if type(part).attend_further is not AttentionPart.attend_further and part.attends_to_tokens:
            return part
    return None


def _projected(
    attention: nn.Module, x_BSD: Tensor, rotation: Rotation, inputs: LayerInputs
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Rotated queries ``[B, S, H, P]``, and the keys and values, or latents and rotated keys, that a layer writes."""
    match attention:
        case GroupedQueryAttention():
            return _grouped(attention, x_BSD, rotation, inputs)
        case LatentAttention():
            return _latent(attention, x_BSD, rotation, inputs)
        case _:
            raise AssertionError(f"no heads for {type(attention).__name__}")


def _with_memory(attention: nn.Module, query_BSHP: Tensor, memory: tuple[Tensor, ...]) -> Heads:
    """Queries with the keys and values of every head."""
    if isinstance(attention, GroupedQueryAttention):
        repeats = attention.num_heads // attention.num_kv_heads
        key_BSHP, value_BSHP = (each.repeat_interleave(repeats, dim=2) for each in memory)
    else:
        assert isinstance(attention, LatentAttention)
        both_BSHP = attention.kv_up(memory[0]).unflatten(-1, (attention.num_heads, -1))
        nope_BSHP, value_BSHP = both_BSHP.split((attention.nope_head_dim, attention.value_head_dim), dim=-1)
        rope_BSHP = memory[1].unsqueeze(2).expand(-1, -1, attention.num_heads, -1)
        key_BSHP = torch.cat((nope_BSHP, rope_BSHP), dim=-1)
    return Heads(*(part.transpose(1, 2) for part in (query_BSHP, key_BSHP, value_BSHP)))


def _grouped(
    layer: GroupedQueryAttention, x_BSD: Tensor, rotation: Rotation, inputs: LayerInputs
) -> tuple[Tensor, tuple[Tensor, ...]]:
    query_BSHP = layer.q_proj(x_BSD).unflatten(-1, (layer.num_heads, -1))
    key_BSGP, value_BSGP = (
        proj(x_BSD).unflatten(-1, (layer.num_kv_heads, -1)) for proj in (layer.k_proj, layer.v_proj)
    )
    query_BSHP, key_BSGP, value_BSGP = layer.part.project(x_BSD, (query_BSHP, key_BSGP, value_BSGP), inputs)
    return rotate(layer.q_norm(query_BSHP), rotation), (rotate(layer.k_norm(key_BSGP), rotation), value_BSGP)


def _latent(
    layer: LatentAttention, x_BSD: Tensor, rotation: Rotation, inputs: LayerInputs
) -> tuple[Tensor, tuple[Tensor, ...]]:
    if hasattr(layer, "q_proj"):
        query_BSD = layer.q_proj(x_BSD)
    else:
        query_BSD = layer.q_up(layer.q_latent_norm(layer.q_down(x_BSD)))
    latent_BSR = layer.kv_latent_norm(layer.kv_down(x_BSD))
    heads = (query_BSD.unflatten(-1, (layer.num_heads, -1)), latent_BSR, layer.k_rope(x_BSD))
    query_BSHP, latent_BSR, key_rope_BSP = layer.part.project(x_BSD, heads, inputs)
    nope_BSHP, rope_BSHP = query_BSHP.split((layer.nope_head_dim, layer.rope_head_dim), dim=-1)
    key_rope_BSP = rotate(key_rope_BSP.unsqueeze(2), rotation).squeeze(2)
    return torch.cat((nope_BSHP, rotate(rope_BSHP, rotation)), dim=-1), (latent_BSR, key_rope_BSP)
