"""Gates of low rank between the old state and the new one."""

from typing import TYPE_CHECKING, Final, Literal

from mythos.config.base import FP32_BYTES, Positive, PositiveInt, config
from mythos.config.part_spec import GroupName, PartSpec, Runtime, Shapes, nothing

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig


@config
class LowRankGate:
    """What the gates have in common."""

    rank: PositiveInt | None = None
    """Rank of the gate's matrix; null for an eighth of the width."""

    def rank_for(self, dim: int) -> int:
        """Return the rank in a model of this width."""
        return self.rank or max(1, dim // 8)


@config
class GrtGateConfig(LowRankGate):
    """h' = g h + (1 - g) y, y = F(h), of the Gated Recurrent Transformer; at the start g is 0.98: not the identity."""

    kind: Literal["grt_gate"] = "grt_gate"
    temperature: Positive = 1.0
    """Divides the logits of g."""


@config
class KeepGateConfig(LowRankGate):
    """h' = y + tanh(a) (h - y), y = F(h): an input-dependent gate of low rank keeps part of the old state."""

    kind: Literal["keep_gate"] = "keep_gate"


@config
class MemoryGateConfig(LowRankGate):
    """c' = f c + i y, h' = y + tanh(a) (o c' - y), y = F(h): a memory over loops with the gates of an LSTM."""

    kind: Literal["memory_gate"] = "memory_gate"


def _gate_saves(part: LowRankGate, model: "ModelConfig", runtime: Runtime, num_operands: int, num_fp32: int) -> int:
    """Both states and the roots of their norms, the gate's hidden vector, and vectors of the model's width."""
    vectors = 2 * runtime.state_width + num_operands * runtime.width + num_fp32 * FP32_BYTES
    return vectors * model.dim + runtime.width * part.rank_for(model.dim) + 2 * FP32_BYTES


def _grt_gate_saves(part: GrtGateConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """What the keep gate saves, and the hidden layer before its activation."""
    hidden = runtime.width * part.rank_for(model.dim)
    return hidden + _gate_saves(part, model, runtime, *((3, 0) if runtime.compiled else (2, 4)))


def _keep_gate_saves(part: KeepGateConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """The gate's input and, if not compiled, both norms and what the mixture multiplies; else the gate's value."""
    return _gate_saves(part, model, runtime, *((3, 0) if runtime.compiled else (2, 4)))


def _memory_gate_saves(part: MemoryGateConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """The gates' input and the cells and, if not compiled, norms, gates and products; else the gates' values."""
    return _gate_saves(part, model, runtime, *((6, 2) if runtime.compiled else (3, 8)))


def _shapes(part: LowRankGate, model: "ModelConfig") -> Shapes:
    """Of a gate for each element of the state, from both states."""
    return {
        "gate.norm_h.weight": (model.dim,),
        "gate.norm_y.weight": (model.dim,),
        "gate.down.weight": (part.rank_for(model.dim), 2 * model.dim),
        "gate.up.weight": (model.dim, part.rank_for(model.dim)),
    }


def _flops(part: LowRankGate, model: "ModelConfig", seq_len: int) -> int:
    return 6 * part.rank_for(model.dim) * model.dim


_VALUES: Final = {
    "gate.norm_h.weight": "ones",
    "gate.norm_y.weight": "ones",
    "gate.down.weight": "input",
    "gate.up.weight": "zeros",
}
_GROUPS: Final[dict[str, GroupName]] = {
    "gate.norm_h.weight": "other",
    "gate.norm_y.weight": "other",
    "gate.down.weight": "hidden",
    "gate.up.weight": "other",
}

GRT_GATE: Final = PartSpec(
    config=GrtGateConfig,
    build="mythos.loop.parts.grt_gate:GrtGate",
    family="loop/grt_gate",
    shapes=lambda part, model: _shapes(part, model) | {"gate.up.bias": (model.dim,)},
    initial_values=_VALUES | {"gate.up.bias": "mythos.loop.parts.grt_gate:initialize_bias"},
    optimizer_group={**_GROUPS, "gate.up.bias": "other"},
    fp32=("gate.up.bias",),
    flops=_flops,
    saved_activations=_grt_gate_saves,
    carry_elements=nothing,
    cached_elements=nothing,
    is_repeatable=False,
)

KEEP_GATE: Final = PartSpec(
    config=KeepGateConfig,
    build="mythos.loop.parts.keep_gate:KeepGate",
    family="loop/keep_gate",
    shapes=_shapes,
    initial_values=_VALUES,
    optimizer_group=_GROUPS,
    fp32=(),
    flops=_flops,
    saved_activations=_keep_gate_saves,
    carry_elements=nothing,
    cached_elements=nothing,
    is_repeatable=False,
)

MEMORY_GATE: Final = PartSpec(
    config=MemoryGateConfig,
    build="mythos.loop.parts.memory_gate:MemoryGate",
    family="loop/memory_gate",
    shapes=lambda part, model: {
        "cell.opening": (model.dim,),
        "cell.norm_h.weight": (model.dim,),
        "cell.norm_y.weight": (model.dim,),
        "cell.down.weight": (part.rank_for(model.dim), 3 * model.dim),
        "cell.up.weight": (3 * model.dim, part.rank_for(model.dim)),
        "cell.up.bias": (3 * model.dim,),
    },
    initial_values={
        "cell.opening": "zeros",
        "cell.norm_h.weight": "ones",
        "cell.norm_y.weight": "ones",
        "cell.down.weight": "input",
        "cell.up.weight": "zeros",
        "cell.up.bias": "mythos.loop.parts.memory_gate:initialize_bias",
    },
    optimizer_group={
        "cell.opening": "other",
        "cell.norm_h.weight": "other",
        "cell.norm_y.weight": "other",
        "cell.down.weight": "hidden",
        "cell.up.weight": "other",
        "cell.up.bias": "other",
    },
    fp32=("cell.opening", "cell.up.bias"),
    flops=lambda part, model, seq_len: 12 * part.rank_for(model.dim) * model.dim,
    saved_activations=_memory_gate_saves,
    carry_elements=lambda part, model: model.dim,
    carry_dtype="fp32",
    cached_elements=nothing,
    is_repeatable=False,
)
