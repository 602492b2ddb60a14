"""Configurations from plain data without pydantic, for the exported file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

from mythos.config.halting import ActHalting, FixedHalting, HaltingConfig, PonderHalting
from mythos.config.model import (
    AdditiveInjection,
    DenseConfig,
    DiagonalInjection,
    GQAConfig,
    HeadConfig,
    LinearInjection,
    MLAConfig,
    ModelConfig,
    MoEConfig,
)

C = TypeVar("C")

_ATTENTION = {"gqa": GQAConfig, "mla": MLAConfig}
_FEED_FORWARD = {"dense": DenseConfig, "moe": MoEConfig}
_INJECTION = {"diagonal": DiagonalInjection, "linear": LinearInjection, "additive": AdditiveInjection}
_HALTING = {"fixed": FixedHalting, "act": ActHalting, "ponder": PonderHalting}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[C]) -> type[C]:
    """Make ``cls`` a frozen, keyword-only dataclass; it stands in for ``mythos.config.base.config``."""
    return dataclass(frozen=True, kw_only=True)(cls)


def model_config(raw: Mapping[str, Any]) -> ModelConfig:
    """The architecture behind what ``mythos.config.base.encode`` made of it."""
    parts = {
        "attention": _variant(_ATTENTION, raw["attention"]),
        "ffn": DenseConfig(**raw["ffn"]),
        "core_ffn": _variant(_FEED_FORWARD, raw["core_ffn"]),
        "injection": _variant(_INJECTION, raw["injection"]),
        "head": HeadConfig(**raw["head"]),
    }
    return ModelConfig(**{**raw, **parts})


def halting_config(raw: Mapping[str, Any]) -> HaltingConfig:
    """The halting behind its encoded form."""
    return _variant(_HALTING, raw)


def _variant(kinds: Mapping[str, Any], raw: Mapping[str, Any]) -> Any:
    return kinds[raw["kind"]](**raw)
