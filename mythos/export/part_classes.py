"""Classes of loop parts, and names that stay in fp32. ``inline`` writes this file for the parts of one model."""

from typing import Any

from mythos.config.injection import INJECTIONS
from mythos.config.model import ModelConfig
from mythos.config.part_spec import load_object
from mythos.config.parts import PARTS, ForeignPart, Part, parts_of

PART_CLASSES: dict[str, tuple[Any, Any, Any]] = {
    kind: (spec.config, load_object(spec.build), spec.attention_build and load_object(spec.attention_build))
    for kind, spec in PARTS.items()
}
"""Configuration, part, and what it puts into attention or None; by kind, for foreign parts by ``foreign:<name>``."""
FP32_MODULES = ["router_bias", "halting", *(name for spec in (INJECTIONS | PARTS).values() for name in spec.fp32)]
"""Parts of names that keep fp32 in a file of 16 bits."""


def written_for(model: ModelConfig) -> str:
    """This file with the parts of one model only, as ``inline`` reads it."""
    parts = parts_of(model)
    imports, rows = [], []
    for part, given in zip(parts[1:], model.loop.parts, strict=True):
        key = f"foreign:{given.name}" if isinstance(given, ForeignPart) else given.kind
        classes = [
            f"{part.spec.config.__module__}:{part.spec.config.__qualname__}",
            part.spec.build,
            part.spec.attention_build,
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
    """Parts of names that keep fp32 in a file of 16 bits, for the parts of one model."""
    return ["router_bias", "halting", *dict.fromkeys(name for part in parts for name in part.spec.fp32)]
