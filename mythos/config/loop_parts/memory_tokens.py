"""Learned registers that are carried from loop to loop and read by the text in every layer of the core."""

from math import prod
from typing import TYPE_CHECKING, Final, Literal

from mythos.config.base import FP32_BYTES, PositiveInt, config
from mythos.config.loop_parts.heads import OwnHeads
from mythos.config.part_spec import OfSequence, PartSpec, Runtime, nothing

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig


@config
class MemoryTokensConfig(OwnHeads):
    """m' = m + attention(m); each head of the core's layers reads o + tanh(g) attend(q, K(m), V(m))."""

    kind: Literal["memory_tokens"] = "memory_tokens"
    num_tokens: PositiveInt = 16
    """Memory tokens."""


def _value_dim(model: "ModelConfig") -> int:
    return model.attention.value_head_dim if model.attention.kind == "mla" else model.head_dim


def _num_expanded(model: "ModelConfig") -> int:
    """Elements of the keys and values that MLA expands from a latent."""
    attention = model.attention
    return attention.num_heads * (attention.nope_head_dim + attention.value_head_dim) if attention.kind == "mla" else 0


def _flops(part: MemoryTokensConfig, model: "ModelConfig", seq_len: int) -> float:
    """Attention of the text; the registers' own products are shared by the tokens of a sequence."""
    num_layers, num_tokens = model.num_core_layers, part.num_tokens
    read = 2 * num_tokens * num_layers * model.attention.num_heads * (model.head_dim + _value_dim(model))
    if seq_len == 0:
        return read
    written = sum(map(prod, model.cached_shapes))
    rank = model.attention.kv_rank if model.attention.kind == "mla" else 0
    projections = 2 * (8 * part.width * model.dim + 4 * num_tokens * part.width)  # the update is computed twice
    projections += 2 * num_layers * (model.dim * written + rank * _num_expanded(model))
    return read + num_tokens * projections / seq_len


def _saved_in_attention(part: MemoryTokensConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """The second attention's output and, if not compiled, the gate's operand; MLA joins its query once more."""
    outputs = _value_dim(model) * (1 if runtime.compiled else 2)
    joined = model.head_dim if model.attention.kind == "mla" else 0
    return model.attention.num_heads * (runtime.width * (outputs + joined) + FP32_BYTES)


def _saved_by_update(part: MemoryTokensConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """Twice the registers, their norm, and what their attention saves; and the registers that the layers read."""
    update = runtime.state_width * model.dim + _normed(model, runtime) + 4 * runtime.width * part.width
    return part.num_tokens * (2 * update + runtime.state_width * model.dim)


def _saved_by_layer(part: MemoryTokensConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """The norm of the registers, and their keys and values before and after the layer's norms."""
    joined = model.attention.num_heads * model.head_dim if model.attention.kind == "mla" else 0
    written = 2 * sum(map(prod, model.cached_shapes)) + _num_expanded(model) + joined
    second_cast = runtime.width * model.dim if runtime.is_cast and not runtime.compiled else 0  # for the second product
    return part.num_tokens * (_normed(model, runtime) + second_cast + runtime.width * written)


def _normed(model: "ModelConfig", runtime: Runtime) -> int:
    """What a norm saves besides its input, and the input of products."""
    return ((0 if runtime.compiled else FP32_BYTES) + runtime.width) * model.dim


MEMORY_TOKENS: Final = PartSpec(
    config=MemoryTokensConfig,
    build="mythos.loop.parts.memory_tokens:MemoryTokens",
    family="loop/memory_tokens",
    shapes=lambda part, model: {
        "tokens.weight": (part.num_tokens, model.dim),
        "update.norm_m.weight": (model.dim,),
        "update.heads.weight": (3 * part.width, model.dim),
        "update.up.weight": (model.dim, part.width),
    },
    initial_values={
        "tokens.weight": "embedding",
        "update.norm_m.weight": "ones",
        "update.heads.weight": "input",
        "update.up.weight": "input",
        "norm_m.weight": "ones",
        "gate.weight": "zeros",
    },
    optimizer_group={
        "tokens.weight": "other",
        "update.norm_m.weight": "other",
        "update.heads.weight": "hidden",
        "update.up.weight": "hidden",
        "norm_m.weight": "other",
        "gate.weight": "other",
    },
    fp32=(),
    flops=_flops,
    saved_activations=nothing,
    carry_elements=nothing,
    cached_elements=nothing,
    is_repeatable=False,
    attention_build="mythos.loop.parts.memory_tokens:MemoryReading",
    attention_shapes=lambda part, model: {
        "norm_m.weight": (model.dim,),
        "gate.weight": (model.attention.num_heads,),
    },
    saved_in_attention=_saved_in_attention,
    of_sequence=OfSequence(
        carry_elements=lambda part, model: part.num_tokens * model.dim,
        saved_activations=_saved_by_update,
        saved_in_attention=_saved_by_layer,
    ),
)
