"""Loop parts: the table of all kinds, and those of a model."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field

from mythos.config import plugins
from mythos.config.base import ConfigError, config, decode
from mythos.config.injection import INJECTIONS
from mythos.config.loop_parts.attention import (
    CROSS_LOOP_ATTENTION,
    VALUE_RESIDUAL,
    CrossLoopAttentionConfig,
    ValueResidualConfig,
)
from mythos.config.loop_parts.depth_attention import DEPTH_ATTENTION, DepthAttentionConfig
from mythos.config.loop_parts.depth_lora import DEPTH_LORA, DepthLoraConfig
from mythos.config.loop_parts.film import FILM, FilmConfig
from mythos.config.loop_parts.film_features import FILM_FEATURES, FilmFeaturesConfig
from mythos.config.loop_parts.gates import (
    GRT_GATE,
    KEEP_GATE,
    MEMORY_GATE,
    GrtGateConfig,
    KeepGateConfig,
    MemoryGateConfig,
)
from mythos.config.loop_parts.lanes import LANES, LanesConfig
from mythos.config.loop_parts.loop_average import LOOP_AVERAGE, LoopAverageConfig
from mythos.config.loop_parts.loop_router import LOOP_ROUTER, LoopRouterConfig
from mythos.config.loop_parts.memory_tokens import MEMORY_TOKENS, MemoryTokensConfig
from mythos.config.part_spec import FIELDS, GroupName, PartSpec, Shapes

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig

ENTRY_POINTS: Final = "mythos.loop_parts"
"""Entry-point group under which other packages declare a ``PartSpec`` for each kind of their own."""


@config
class ForeignPart:
    """A part of another installed package."""

    kind: Literal["foreign"] = "foreign"
    name: str
    """Of its entry point."""
    options: dict[str, Any] = field(default_factory=dict)
    """The part's own configuration."""


PartConfig = Annotated[
    CrossLoopAttentionConfig
    | DepthAttentionConfig
    | DepthLoraConfig
    | FilmConfig
    | FilmFeaturesConfig
    | GrtGateConfig
    | KeepGateConfig
    | LanesConfig
    | LoopAverageConfig
    | LoopRouterConfig
    | MemoryGateConfig
    | MemoryTokensConfig
    | ValueResidualConfig
    | ForeignPart,
    Field(discriminator="kind"),
]


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


PARTS: Final = {
    "cross_loop_attention": CROSS_LOOP_ATTENTION,
    "depth_attention": DEPTH_ATTENTION,
    "depth_lora": DEPTH_LORA,
    "film": FILM,
    "film_features": FILM_FEATURES,
    "grt_gate": GRT_GATE,
    "keep_gate": KEEP_GATE,
    "lanes": LANES,
    "loop_average": LOOP_AVERAGE,
    "loop_router": LOOP_ROUTER,
    "memory_gate": MEMORY_GATE,
    "memory_tokens": MEMORY_TOKENS,
    "value_residual": VALUE_RESIDUAL,
}
"""By ``kind``. A part is a file of ``mythos/loop/parts``, one of ``mythos/config/loop_parts``, and an entry here."""


class Part(NamedTuple):
    """One part of a model."""

    prefix: str
    """Of its parameters' names."""
    attention_prefix: str
    """Pattern for those inside the attention of the core's blocks."""
    router_prefix: str
    """Pattern for those beside their routers."""
    spec: PartSpec
    config: Any

    def attention_prefixes(self, model: "ModelConfig") -> list[str]:
        """Prefix inside the attention of each block of the core; empty if the part is not there."""
        num_layers = 0 if self.spec.attention_build is None else model.num_core_layers
        return [self.attention_prefix.replace("*", str(layer)) for layer in range(num_layers)]

    def parameters(self, model: "ModelConfig") -> Iterator[tuple[str, str]]:
        """Pattern of each parameter's name in the model, and its name in the spec."""
        yield from ((f"{self.prefix}.{name}", name) for name in self.spec.shapes(self.config, model))
        for prefix, shapes in self.in_blocks(model).items():
            yield from ((f"{prefix}.{name}", name) for name in shapes)

    def in_blocks(self, model: "ModelConfig") -> dict[str, Shapes]:
        """Parameters in each block of the core, by the pattern of their prefix."""
        return {
            self.attention_prefix: self.spec.attention_shapes(self.config, model),
            self.router_prefix: self.spec.router_shapes(self.config, model),
        }


def parts_of(model: "ModelConfig") -> list[Part]:
    """The injection, then the configured parts in their order; imports the foreign ones.

    Raises:
        ConfigError: a foreign part is not installed, cannot be imported, or lacks a field of ``PartSpec``.
    """
    parts = [Part("core.injection", "", "", INJECTIONS[model.injection.kind], model.injection)]
    num_in_attention = num_at_routers = 0
    for index, part in enumerate(model.loop.parts):
        spec, options = _resolved(part, f"model.loop.parts.{index}")
        prefixes = (
            f"core.parts.{index}",
            f"core.blocks.*.attention.part.parts.{num_in_attention}",
            f"core.blocks.*.router_part.parts.{num_at_routers}",
        )
        parts.append(Part(*prefixes, spec, options))
        num_in_attention += spec.attention_build is not None
        num_at_routers += spec.router_build is not None
    return parts


def check_parts(model: "ModelConfig") -> None:
    """Refuse parts that cannot be used.

    Raises:
        ConfigError: see ``parts_of``; or the model cannot have a part; or a foreign part is there twice that may be
            there once.
    """
    for index, part in enumerate(parts_of(model)[1:]):
        if reason := part.spec.refusal(part.config, model):
            raise ConfigError(f"model.loop.parts.{index}: {reason}")
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
