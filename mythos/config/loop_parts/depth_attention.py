"""Attention of each token to its own earlier states."""

from typing import TYPE_CHECKING, Final, Literal

from mythos.config.base import FP32_BYTES, PositiveInt, config
from mythos.config.loop_parts.heads import OwnHeads
from mythos.config.part_spec import PartSpec, Runtime, nothing

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig


@config
class DepthAttentionConfig(OwnHeads):
    """h' = F(h + tanh(g) o): each token attends to its own states of the last loops."""

    kind: Literal["depth_attention"] = "depth_attention"
    num_slots: PositiveInt = 8
    """Earlier loops that a loop attends to."""


def _saved(part: DepthAttentionConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """The norm, inputs and outputs of the projections, and the logarithms of the softmax; slots are saved once."""
    width, dim, inner = runtime.width, model.dim, part.width
    normed = (width if runtime.compiled else FP32_BYTES + (2 * width if runtime.is_cast else FP32_BYTES)) * dim
    attended = 4 * width * inner + FP32_BYTES * part.num_heads  # query, key and value, output
    return runtime.state_width * dim + FP32_BYTES + normed + attended + width * dim


DEPTH_ATTENTION: Final = PartSpec(
    config=DepthAttentionConfig,
    build="mythos.loop.parts.depth_attention:DepthAttention",
    family="loop/depth_attention",
    shapes=lambda part, model: {
        "project.norm_h.weight": (model.dim,),
        "project.query.weight": (part.width, model.dim),
        "project.memory.weight": (2 * part.width, model.dim),
        "write.up.weight": (model.dim, part.width),
        "write.opening": (model.dim,),
    },
    initial_values={
        "project.norm_h.weight": "ones",
        "project.query.weight": "input",
        "project.memory.weight": "input",
        "write.up.weight": "input",
        "write.opening": "zeros",
    },
    optimizer_group={
        "project.norm_h.weight": "other",
        "project.query.weight": "hidden",
        "project.memory.weight": "hidden",
        "write.up.weight": "hidden",
        "write.opening": "other",
    },
    fp32=("write.opening",),
    flops=lambda part, model, seq_len: 8 * part.width * model.dim,
    saved_activations=_saved,
    carry_elements=lambda part, model: part.num_slots * 2 * part.width,
    new_carry_elements=lambda part, model: 2 * part.width,
    cached_elements=nothing,
    is_repeatable=False,
    carry_dtype="product",
)
