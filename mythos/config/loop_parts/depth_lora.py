"""Changes of low rank of a layer's matrices in each loop."""

from typing import TYPE_CHECKING, Final, Literal

from mythos.config.base import PositiveInt, config
from mythos.config.part_spec import PartSpec, Runtime, Shapes, nothing

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig


@config
class DepthLoraConfig:
    """W_t = W + B_t A_t from the second loop on, for the projections of attention and the router of each core layer."""

    kind: Literal["depth_lora"] = "depth_lora"
    rank: PositiveInt = 8
    """Rank of the changes."""


def num_rows(model: "ModelConfig") -> int:
    """Rows of the tables over loops, which the first loop does not read."""
    return model.max_loops - 1


def head_widths(model: "ModelConfig") -> dict[str, int]:
    """Width of each projection that ``AttentionPart.project`` changes, by name, in its order."""
    attention, head_dim = model.attention, model.head_dim
    if attention.kind == "mla":
        return {"q": attention.num_heads * head_dim, "latent": attention.kv_rank, "k_rope": attention.rope_head_dim}
    width = attention.num_kv_heads * head_dim
    return {"q": attention.num_heads * head_dim, "k": width, "v": width}


def _attention_shapes(part: DepthLoraConfig, model: "ModelConfig") -> Shapes:
    rows, widths = num_rows(model), head_widths(model)
    return {
        "down.weight": (rows, len(widths) * part.rank, model.dim),
        **{f"up.{name}.weight": (rows, width, part.rank) for name, width in widths.items()},
    }


def _router_shapes(part: DepthLoraConfig, model: "ModelConfig") -> Shapes:
    if model.core_ffn.kind != "moe":
        return {}
    rows = num_rows(model)
    return {
        "router_down.weight": (rows, part.rank, model.dim),
        "router_up.weight": (rows, model.core_ffn.num_experts, part.rank),
    }


def _flops(part: DepthLoraConfig, model: "ModelConfig", seq_len: int) -> int:
    """Of the projections; the router's matrix changes once in a loop, not for each token."""
    widths = head_widths(model).values()
    return model.num_core_layers * 2 * part.rank * (len(widths) * model.dim + sum(widths))


def _saved_in_attention(part: DepthLoraConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """The hidden vectors and, where each product casts its input, one more cast."""
    cast = runtime.width * model.dim if runtime.is_cast and not runtime.compiled else 0
    return cast + runtime.width * len(head_widths(model)) * part.rank


def _refusal(part: DepthLoraConfig, model: "ModelConfig") -> str | None:
    if model.max_loops > 1:
        return None
    return "depth_lora changes the loops after the first, but model.max_loops is 1; set model.max_loops to 2 or more."


_DOWN: Final = ("down.weight", "router_down.weight")
_UP: Final = (*(f"up.{name}.weight" for name in ("q", "k", "v", "latent", "k_rope")), "router_up.weight")

DEPTH_LORA: Final = PartSpec(
    config=DepthLoraConfig,
    build="mythos.loop.parts.depth_lora:DepthLora",
    family="loop/depth_lora",
    shapes=lambda part, model: {},
    initial_values=dict.fromkeys(_DOWN, "input") | dict.fromkeys(_UP, "zeros"),
    optimizer_group=dict.fromkeys((*_DOWN, *_UP), "other"),
    fp32=(),
    flops=_flops,
    saved_activations=nothing,
    carry_elements=nothing,
    cached_elements=nothing,
    is_repeatable=False,
    attention_build="mythos.loop.parts.depth_lora:AttentionLora",
    attention_shapes=_attention_shapes,
    saved_in_attention=_saved_in_attention,
    router_build="mythos.loop.parts.depth_lora:RouterLora",
    router_shapes=_router_shapes,
    refusal=_refusal,
)
