"""Build configurations from plain data without pydantic, for the exported file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

from mythos.config.halting import ActHalting, FixedHalting, HaltingConfig, PonderHalting
from mythos.config.injection import AdditiveInjection, DiagonalInjection, LinearInjection
from mythos.config.model import DenseConfig, GQAConfig, HeadConfig, MLAConfig, ModelConfig, MoEConfig
from mythos.config.parts import ForeignPart, LoopConfig
from mythos.export.part_classes import PART_CLASSES
from mythos.layers.attention_part import AttentionPart
from mythos.layers.router_part import RouterPart
from mythos.loop.part import LoopPart

C = TypeVar("C")

_ATTENTION = {"gqa": GQAConfig, "mla": MLAConfig}
_FEED_FORWARD = {"dense": DenseConfig, "moe": MoEConfig}
_INJECTION = {"diagonal": DiagonalInjection, "linear": LinearInjection, "additive": AdditiveInjection}
_HALTING = {"fixed": FixedHalting, "act": ActHalting, "ponder": PonderHalting}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[C]) -> type[C]:
    """Make ``cls`` a frozen, keyword-only dataclass; replaces ``mythos.config.base.config`` in the exported file."""
    return dataclass(frozen=True, kw_only=True)(cls)


def model_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Decode a model configuration that ``mythos.config.base.encode`` encoded."""
    parts = {
        "attention": _variant(_ATTENTION, raw["attention"]),
        "ffn": DenseConfig(**raw["ffn"]),
        "core_ffn": _variant(_FEED_FORWARD, raw["core_ffn"]),
        "injection": _variant(_INJECTION, raw["injection"]),
        "loop": LoopConfig(parts=tuple(_part_config(part) for part in raw["loop"]["parts"])),
        "head": HeadConfig(**raw["head"]),
    }
    return ModelConfig(**{**raw, **parts})


def build_parts(model: ModelConfig) -> list[LoopPart]:
    """The model's loop parts; replaces ``mythos.loop.build.build_parts`` in the exported file."""
    return [PART_CLASSES[_key(part)][1](_options(part), model) for part in model.loop.parts]


def build_attention_parts(model: ModelConfig) -> list[AttentionPart | None]:
    """The attention parts of one block; replaces the function of ``mythos.loop.build`` in the exported file."""
    classes = [(PART_CLASSES[_key(part)][2], _options(part)) for part in model.loop.parts]
    return [None if build is None else build(options, model) for build, options in classes]


def build_router_parts(model: ModelConfig) -> list[RouterPart]:
    """The parts beside the router of one block; replaces the function of ``mythos.loop.build`` in the exported file."""
    classes = [(PART_CLASSES[_key(part)][3], _options(part)) for part in model.loop.parts]
    return [build(options, model) for build, options in classes if build is not None]


def halting_config(raw: Mapping[str, Any]) -> HaltingConfig:
    """Decode a halting configuration."""
    return _variant(_HALTING, raw)


def _part_config(raw: Mapping[str, Any]) -> Any:
    return ForeignPart(**raw) if raw["kind"] == "foreign" else PART_CLASSES[raw["kind"]][0](**raw)


def _key(part: Any) -> str:
    return f"foreign:{part.name}" if part.kind == "foreign" else part.kind


def _options(part: Any) -> Any:
    return PART_CLASSES[_key(part)][0](**part.options) if part.kind == "foreign" else part


def _variant(kinds: Mapping[str, Any], raw: Mapping[str, Any]) -> Any:
    return kinds[raw["kind"]](**raw)
