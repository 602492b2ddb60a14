"""Declare configuration classes, decode plain data into them, and describe mistakes to the user."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Final, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

C = TypeVar("C")
_UNKNOWN: Final = ("extra_forbidden", "unexpected_keyword_argument")
"""Types of pydantic's errors about a key that a class does not have."""

MAX_INT = 2**63 - 1
"""Largest integer of tensors and files."""
FP32_BYTES: Final = 4
"""Bytes of an fp32 element."""
Count = Annotated[int, Field(ge=0, le=MAX_INT, strict=True)]
PositiveInt = Annotated[int, Field(ge=1, le=MAX_INT, strict=True)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=1e9, strict=True)]
"""A time that the timers of the system take: up to 31 years."""
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
PositiveInts = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one sentence per mistake, for the user."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[C]) -> type[C]:
    """Make ``cls`` a frozen, keyword-only, slotted dataclass that refuses unknown keys.

    Relations between fields are checked in ``__post_init__`` by raising ``ValueError`` with a sentence that
    names the fields relative to the class; ``decode`` puts the dotted path of the class in front.
    """
    frozen = dataclass(frozen=True, kw_only=True, slots=True)(cls)
    return with_config(ConfigDict(extra="forbid"))(frozen)


def decode(kind: type[C], raw: Any) -> C:
    """Build a ``kind`` from plain dicts, lists and scalars.

    Raises:
        ConfigError: one line per mistake, each beginning with the dotted path.
    """
    try:
        return _adapter(kind).validate_python(raw)  # type: ignore[arg-type]  # a class is hashable
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(kind, raw, item) for item in error.errors())) from None


@cache
def _adapter(kind: type[C]) -> TypeAdapter[C]:
    """Return the validator of a class, which takes a tenth of a second to build for a whole configuration."""
    return TypeAdapter(kind)


def unknown_keys(kind: type, raw: Any) -> set[str]:
    """Return the dotted paths of plain data that ``kind`` has no field for."""
    try:
        _adapter(kind).validate_python(raw)
    except ValidationError as error:
        return {_dotted(raw, item["loc"]) for item in error.errors() if item["type"] in _UNKNOWN}
    return set()


def encode(value: Any) -> dict[str, Any]:
    """Return the configuration as plain JSON data, which ``decode`` reads."""
    return json.loads(json.dumps(dataclasses.asdict(value)))


def fingerprint(value: Any) -> str:
    """Return sixteen hexadecimal digits that change when any field changes."""
    text = json.dumps(encode(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(raw: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one dict from dotted paths to leaves."""
    if not isinstance(raw, dict):
        return {prefix: raw}
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one line per dotted path whose value differs between two encoded configurations."""
    before, after = flatten(old), flatten(new)
    paths = sorted(before.keys() | after.keys())
    return [
        f"{path}: {before.get(path, '(absent)')} -> {after.get(path, '(absent)')}"
        for path in paths
        if before.get(path, "(absent)") != after.get(path, "(absent)")
    ]


def suggestion(word: str, known: list[str]) -> str:
    """Return a hint for a misspelt word, or the list of known words."""
    if close := get_close_matches(word, known, n=1):
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(sorted(known)) or 'nothing'}."


def _sentence(kind: Any, raw: Any, item: Any) -> str:
    """Describe one mistake: dotted path, what was given, what was expected."""
    path = _dotted(raw, item["loc"])
    match item["type"]:
        case kind_of_error if kind_of_error in _UNKNOWN:
            parent, _, key = path.rpartition(".")
            return f"{path}: no such key; {suggestion(key, _known_keys(kind, raw, parent))}"
        case "union_tag_not_found":
            return f"{path}.kind: a value is needed and none was given."
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{path}: a value is needed and none was given."
        case "union_tag_invalid":
            return f"{path}.kind: {item['ctx']['tag']!r} was given; it is one of {item['ctx']['expected_tags']}."
        case "value_error":
            return f"{path + ': ' if path else ''}{item['ctx']['error']}"
        case "string_type" if isinstance(item["input"], str | int | float | bool | None):
            return (
                f"{path}: a text is needed, but {item['input']!r} was given; quote a text that reads as another value, "
                f"""'{path}="TEXT"'."""
            )
        case _:
            return f"{path}: {item['msg'][0].lower() + item['msg'][1:]}, but {item['input']!r} was given."


def _dotted(raw: Any, location: tuple[int | str, ...]) -> str:
    """Return the path without the variant names that pydantic adds for tagged unions."""
    names: list[str] = []
    node = raw
    for step in location:
        if isinstance(node, dict) and step not in node and step == node.get("kind"):
            continue
        names.append(str(step))
        node = _child(node, step)
    return ".".join(names)


def _child(node: Any, step: int | str) -> Any:
    """Return an entry of a dict, or of a list by its index; None if there is none."""
    if isinstance(node, list | tuple):
        return node[int(step)] if str(step).isdigit() and int(step) < len(node) else None
    return node.get(step) if isinstance(node, dict) else None


def _known_keys(kind: Any, raw: Any, parent: str) -> list[str]:
    """Return the keys of the schema at a dotted path."""
    schema = TypeAdapter(kind).json_schema()
    definitions = schema.get("$defs", {})
    node: Any = raw

    def resolve(part: dict[str, Any]) -> dict[str, Any]:
        part = next((option for option in part.get("anyOf", []) if "$ref" in option), part)
        if "discriminator" in part:
            reference = part["discriminator"]["mapping"].get(node.get("kind"), "")
            return definitions.get(reference.rsplit("/", 1)[-1], {})
        return definitions[part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part

    def below(part: dict[str, Any], step: str) -> dict[str, Any]:
        return part["items"] if part.get("type") == "array" else part.get("properties", {}).get(step, {})

    schema = resolve(schema)
    for step in filter(None, parent.split(".")):
        node = _child(node, step) or {}
        schema = resolve(below(schema, step))
    return list(schema.get("properties", {}))
