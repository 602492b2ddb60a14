"""Explicit attention weights, which the fast kernels never store, computed from a layer's own projections."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.mask import causal_mask
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


def heads_of(attention: nn.Module, x_BSD: Tensor, rotation: Rotation) -> Heads:
    """Queries, keys and values of an attention layer for its (normed) input."""
    match attention:
        case GroupedQueryAttention():
            return _grouped(attention, x_BSD, rotation)
        case LatentAttention():
            return _latent(attention, x_BSD, rotation)
        case _:
            raise AssertionError(f"no heads for {type(attention).__name__}")


def _grouped(layer: GroupedQueryAttention, x_BSD: Tensor, rotation: Rotation) -> Heads:
    query_BSHP = layer.q_norm(layer.q_proj(x_BSD).unflatten(-1, (layer.num_heads, -1)))
    key_BSGP = layer.k_norm(layer.k_proj(x_BSD).unflatten(-1, (layer.num_kv_heads, -1)))
    value_BSGP = layer.v_proj(x_BSD).unflatten(-1, (layer.num_kv_heads, -1))
    repeats = layer.num_heads // layer.num_kv_heads
    key_BSHP = rotate(key_BSGP, rotation).repeat_interleave(repeats, dim=2)
    value_BSHP = value_BSGP.repeat_interleave(repeats, dim=2)
    return Heads(*(part.transpose(1, 2) for part in (rotate(query_BSHP, rotation), key_BSHP, value_BSHP)))


def _latent(layer: LatentAttention, x_BSD: Tensor, rotation: Rotation) -> Heads:
    if hasattr(layer, "q_proj"):
        query_BSD = layer.q_proj(x_BSD)
    else:
        query_BSD = layer.q_up(layer.q_latent_norm(layer.q_down(x_BSD)))
    nope_BSHP, rope_BSHP = query_BSD.unflatten(-1, (layer.num_heads, -1)).split(
        (layer.nope_head_dim, layer.rope_head_dim), dim=-1
    )
    both_BSHP = layer.kv_up(layer.kv_latent_norm(layer.kv_down(x_BSD))).unflatten(-1, (layer.num_heads, -1))
    key_nope_BSHP, value_BSHP = both_BSHP.split((layer.nope_head_dim, layer.value_head_dim), dim=-1)
    key_rope_BS1P = rotate(layer.k_rope(x_BSD).unsqueeze(2), rotation)
    query_BSHP = torch.cat((nope_BSHP, rotate(rope_BSHP, rotation)), dim=-1)
    key_BSHP = torch.cat((key_nope_BSHP, key_rope_BS1P.expand(-1, -1, layer.num_heads, -1)), dim=-1)
    return Heads(*(part.transpose(1, 2) for part in (query_BSHP, key_BSHP, value_BSHP)))
