"""Loop parts: their configurations, one row for each kind, and those of a model."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field

from mythos.config import plugins
from mythos.config.base import ConfigError, PositiveInt, config, decode
from mythos.config.injection import INJECTIONS
from mythos.config.part_spec import FIELDS, GroupName, PartSpec, Runtime, nothing

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig

ENTRY_POINTS: Final = "mythos.loop_parts"
"""Entry-point group under which other packages declare a ``PartSpec`` for each kind of their own."""
_FP32: Final = 4
"""Bytes of an fp32 element."""


@config
class FilmConfig:
    """h' = F((1 + g_t) h + b_t): each loop scales and shifts the state (FiLM, arXiv 1709.07871, by loop index)."""

    kind: Literal["film"] = "film"


@config
class LowRankGate:
    """What the gates have in common."""

    rank: PositiveInt | None = None
    """Rank of the gate's matrix; null for an eighth of the width."""

    def rank_for(self, dim: int) -> int:
        """Return the rank in a model of this width."""
        return self.rank or max(1, dim // 8)


@config
class KeepGateConfig(LowRankGate):
    """h' = y + tanh(a) (h - y), y = F(h): an input-dependent gate of low rank keeps part of the old state."""

    kind: Literal["keep_gate"] = "keep_gate"


@config
class MemoryGateConfig(LowRankGate):
    """c' = f c + i y, h' = y + tanh(a) (o c' - y), y = F(h): a memory over loops with the gates of an LSTM."""

    kind: Literal["memory_gate"] = "memory_gate"


@config
class ForeignPart:
    """A part of another installed package."""

    kind: Literal["foreign"] = "foreign"
    name: str
    """Of its entry point."""
    options: dict[str, Any] = field(default_factory=dict)
    """The part's own configuration."""


PartConfig = Annotated[FilmConfig | KeepGateConfig | MemoryGateConfig | ForeignPart, Field(discriminator="kind")]


@config
class LoopConfig:
    """What a loop is made of besides the injection and the blocks."""

    parts: tuple[PartConfig, ...] = ()
    """Parts around the injection and the blocks, the outermost first."""

    def __post_init__(self) -> None:
        names = Counter(part.kind for part in self.parts if not isinstance(part, ForeignPart))
        for kind, count in names.items():
            if count > 1 and not PARTS[kind].is_repeatable:
                raise ValueError(f"parts holds {count} of kind {kind}, but a model has at most 1; leave one out.")


def _gate_saves(part: LowRankGate, model: "ModelConfig", runtime: Runtime, num_operands: int, num_fp32: int) -> int:
    """Both states and the roots of their norms, the gate's hidden vector, and vectors of the model's width."""
    vectors = 2 * runtime.state_width + num_operands * runtime.width + num_fp32 * _FP32
    return vectors * model.dim + runtime.width * part.rank_for(model.dim) + 2 * _FP32


def _keep_gate_saves(part: KeepGateConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """The gate's input and, if not compiled, both norms and what the mixture multiplies; else the gate's value."""
    return _gate_saves(part, model, runtime, *((3, 0) if runtime.compiled else (2, 4)))


def _memory_gate_saves(part: MemoryGateConfig, model: "ModelConfig", runtime: Runtime) -> int:
    """The gates' input and the cells and, if not compiled, norms, gates and products; else the gates' values."""
    return _gate_saves(part, model, runtime, *((6, 2) if runtime.compiled else (3, 8)))


PARTS: Final = {
    "film": PartSpec(
        config=FilmConfig,
        build="mythos.loop.parts.film:Film",
        family="loop/film",
        shapes=lambda part, model: {
            "scale.weight": (model.max_loops, model.dim),
            "shift.weight": (model.max_loops, model.dim),
        },
        initial_values={"scale.weight": "zeros", "shift.weight": "zeros"},
        optimizer_group={"scale.weight": "other", "shift.weight": "other"},
        fp32=(),
        flops=nothing,
        saved_activations=lambda part, model, runtime: runtime.state_width * model.dim,
        carry_elements=nothing,
        cached_elements=nothing,
        is_repeatable=False,
    ),
    "keep_gate": PartSpec(
        config=KeepGateConfig,
        build="mythos.loop.parts.keep_gate:KeepGate",
        family="loop/keep_gate",
        shapes=lambda part, model: {
            "gate.norm_h.weight": (model.dim,),
            "gate.norm_y.weight": (model.dim,),
            "gate.down.weight": (part.rank_for(model.dim), 2 * model.dim),
            "gate.up.weight": (model.dim, part.rank_for(model.dim)),
        },
        initial_values={
            "gate.norm_h.weight": "ones",
            "gate.norm_y.weight": "ones",
            "gate.down.weight": "input",
            "gate.up.weight": "zeros",
        },
        optimizer_group={
            "gate.norm_h.weight": "other",
            "gate.norm_y.weight": "other",
            "gate.down.weight": "hidden",
            "gate.up.weight": "other",
        },
        fp32=(),
        flops=lambda part, model, seq_len: 6 * part.rank_for(model.dim) * model.dim,
        saved_activations=_keep_gate_saves,
        carry_elements=nothing,
        cached_elements=nothing,
        is_repeatable=False,
    ),
    "memory_gate": PartSpec(
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
        cached_elements=nothing,
        is_repeatable=False,
    ),
}
"""By ``kind``. A part is a file of ``mythos/loop/parts`` and a row here."""


class Part(NamedTuple):
    """One part of a model."""

    prefix: str
    """Of its parameters' names."""
    attention_prefix: str
    """Pattern for those inside the attention of the core's blocks."""
    spec: PartSpec
    config: Any

    def parameters(self, model: "ModelConfig") -> Iterator[tuple[str, str]]:
        """Pattern of each parameter's name in the model, and its name in the spec."""
        yield from ((f"{self.prefix}.{name}", name) for name in self.spec.shapes(self.config, model))
        yield from (
            (f"{self.attention_prefix}.{name}", name) for name in self.spec.attention_shapes(self.config, model)
        )


def parts_of(model: "ModelConfig") -> list[Part]:
    """The injection, then the configured parts in their order; imports the foreign ones.

    Raises:
        ConfigError: a foreign part is not installed, cannot be imported, or lacks a field of ``PartSpec``.
    """
    parts = [Part("core.injection", "", INJECTIONS[model.injection.kind], model.injection)]
    num_in_attention = 0
    for index, part in enumerate(model.loop.parts):
        spec, options = _resolved(part, f"model.loop.parts.{index}")
        parts.append(
            Part(f"core.parts.{index}", f"core.blocks.*.attention.part.parts.{num_in_attention}", spec, options)
        )
        num_in_attention += spec.attention_build is not None
    return parts


def check_parts(model: "ModelConfig") -> None:
    """Refuse foreign parts that cannot be used.

    Raises:
        ConfigError: see ``parts_of``; or a foreign part is there twice that may be there once.
    """
    parts_of(model)
    names = Counter(part.name for part in model.loop.parts if isinstance(part, ForeignPart))
    for name, count in names.items():
        if count > 1 and not _spec(name, "model.loop.parts").is_repeatable:
            raise ConfigError(f"model.loop.parts holds {count} of {name!r}, but a model has at most 1; leave one out.")


def optimizer_groups(model: "ModelConfig") -> list[tuple[str, GroupName]]:
    """Pattern of each part's parameter, and its group."""
    return [
        (pattern, part.spec.optimizer_group[name])
        for part in parts_of(model)
        for pattern, name in part.parameters(model)
    ]


def foreign_packages(model: "ModelConfig") -> dict[str, str]:
    """Package and version of each foreign part, by its name."""
    wanted = {part.name for part in model.loop.parts if isinstance(part, ForeignPart)}
    return {
        plugin.name: f"{plugin.package} {plugin.version}"
        for plugin in plugins.described(ENTRY_POINTS)
        if plugin.name in wanted
    }


def _resolved(part: PartConfig, path: str) -> tuple[PartSpec, Any]:
    """Spec and configuration of a part."""
    if not isinstance(part, ForeignPart):
        return PARTS[part.kind], part
    spec = _spec(part.name, f"{path}.name")
    try:
        return spec, decode(spec.config, part.options)
    except ConfigError as error:
        sentences = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}.options.{sentence}" for sentence in sentences)) from None


def _spec(name: str, path: str) -> PartSpec:
    spec: PartSpec = plugins.load(ENTRY_POINTS, name, path, FIELDS)
    return spec
