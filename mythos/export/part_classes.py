"""Classes of loop parts, and tensors that stay in fp32. In an exported file ``written_for`` replaces this module."""

from typing import Any

from mythos.config.injection import INJECTIONS
from mythos.config.model import ModelConfig
from mythos.config.part_spec import load_object
from mythos.config.parts import PARTS, ForeignPart, Part, parts_of

PART_CLASSES: dict[str, tuple[Any, Any, Any, Any]] = {
    kind: (
        spec.config,
        load_object(spec.build),
        spec.attention_build and load_object(spec.attention_build),
        spec.router_build and load_object(spec.router_build),
    )
    for kind, spec in PARTS.items()
}
"""Configuration, loop part, attention part or None, and router part or None, by kind; foreign parts by
``foreign:<name>``."""
FP32_MODULES = ["router_bias", "halting", *(name for spec in (INJECTIONS | PARTS).values() for name in spec.fp32)]
"""Substrings of the names of tensors that stay in fp32 in a 16-bit export."""


def written_for(model: ModelConfig) -> str:
    """Source that defines the tables of this module for the parts of one model only; ``inlined`` takes it."""
    parts = parts_of(model)
    imports, rows = [], []
    for part, given in zip(parts[1:], model.loop.parts, strict=True):
        key = f"foreign:{given.name}" if isinstance(given, ForeignPart) else given.kind
        classes = [
            f"{part.spec.config.__module__}:{part.spec.config.__qualname__}",
            part.spec.build,
            part.spec.attention_build,
            part.spec.router_build,
        ]
        names = []
        for path in classes:
            module, _, name = (path or "").partition(":")
            imports += [f"from {module} import {name}"] if name else []
            names.append(name or "None")
        rows.append(f"    {key!r}: ({', '.join(names)}),")
    table = "PART_CLASSES = {\n" + "\n".join(dict.fromkeys(rows)) + "\n}" if rows else "PART_CLASSES = {}"
    return "\n".join([*dict.fromkeys(imports), table, f"FP32_MODULES = {fp32_modules(parts)!r}", ""])


def fp32_modules(parts: list[Part]) -> list[str]:
    """``FP32_MODULES`` for the parts of one model only."""
    return ["router_bias", "halting", *(f"{part.prefix}.{name}" for part in parts for name in part.spec.fp32)]
