"""Parts inside the attention of the core's blocks that read keys and values of earlier loops."""

from math import prod
from typing import TYPE_CHECKING, Final, Literal

from mythos.config.base import FP32_BYTES, config
from mythos.config.part_spec import PartSpec, Runtime, nothing

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig


@config
class CrossLoopAttentionConfig:
    """o = attend(q, K, V) + tanh(g) attend(q, K_prev, V_prev): each head also reads the layer's loop before."""

    kind: Literal["cross_loop_attention"] = "cross_loop_attention"


@config
class ValueResidualConfig:
    """V' = V + g (V_first - V): each layer mixes the values of its first loop into those of every loop."""

    kind: Literal["value_residual"] = "value_residual"


def _further_flops(part: CrossLoopAttentionConfig, model: "ModelConfig", seq_len: int) -> float:
    """Scores and weighted values over half of the sequence on average; MLA also expands the latents once more."""
    attention, width = model.attention, 2 * model.head_dim
    expansion = 0
    if attention.kind == "mla":
        width = model.head_dim + attention.value_head_dim
        expansion = 2 * attention.kv_rank * (attention.nope_head_dim + attention.value_head_dim)
    return model.num_core_layers * attention.num_heads * (seq_len * width + expansion)


def _further_saves(part: CrossLoopAttentionConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """What the second attention and the sum save; keys and values, or latents, are saved by the loop before.

    Compiled code computes the sum once more in the backward.
    """
    attention, value_dim, expanded = model.attention, model.head_dim, 0
    if attention.kind == "mla":
        value_dim = attention.value_head_dim
        expanded = 2 * model.head_dim + attention.nope_head_dim + value_dim  # query and key are joined once more
    outputs = value_dim if runtime.compiled else 2 * value_dim
    per_head = runtime.width * (outputs + expanded) + FP32_BYTES
    return attention.num_heads * per_head + runtime.width * runtime.num_masked_keys


def _value_shape(model: "ModelConfig") -> tuple[int, ...]:
    """Shape of a token's values, for MLA of the latent from which they are computed."""
    return model.cached_shapes[0 if model.attention.kind == "mla" else 1]


def num_value_heads(model: "ModelConfig") -> int:
    """Heads with values of their own; the latent of MLA is one for all."""
    return 1 if model.attention.kind == "mla" else model.attention.num_kv_heads


CROSS_LOOP_ATTENTION: Final = PartSpec(
    config=CrossLoopAttentionConfig,
    build="mythos.loop.part:InBlocks",
    family="loop/cross_loop_attention",
    shapes=lambda part, model: {},
    initial_values={"gate.weight": "zeros"},
    optimizer_group={"gate.weight": "other"},
    fp32=(),
    flops=_further_flops,
    saved_activations=nothing,
    carry_elements=lambda part, model: model.num_core_layers * sum(map(prod, model.cached_shapes)),
    cached_elements=nothing,
    is_repeatable=False,
    attention_build="mythos.loop.parts.cross_loop_attention:CrossLoopAttention",
    attention_shapes=lambda part, model: {"gate.weight": (model.attention.num_heads,)},
    saved_in_attention=_further_saves,
    carry_dtype="product",
)

VALUE_RESIDUAL: Final = PartSpec(
    config=ValueResidualConfig,
    build="mythos.loop.part:InBlocks",
    family="loop/value_residual",
    shapes=lambda part, model: {},
    initial_values={"mix.weight": "zeros"},
    optimizer_group={"mix.weight": "other"},
    fp32=(),
    flops=nothing,
    saved_activations=nothing,
    carry_elements=lambda part, model: model.num_core_layers * prod(_value_shape(model)),
    cached_elements=nothing,
    is_repeatable=False,
    attention_build="mythos.loop.parts.value_residual:ValueResidual",
    attention_shapes=lambda part, model: {"mix.weight": (num_value_heads(model),)},
    saved_in_attention=lambda part, model, runtime: runtime.width * prod(_value_shape(model)),
    carry_dtype="product",
)
