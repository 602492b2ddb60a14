"""Every key of a configuration with its value and its meaning, which is the docstring below the field."""

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

from mythos.config.run import RunConfig

REQUIRED: Final = "(required)"
"""Value of a key of an absent part that has no default."""


class Key(NamedTuple):
    """A key of a configuration, or a section of keys."""

    path: str
    """Dotted."""
    value: Any
    meaning: str
    choices: tuple[Any, ...] = ()
    """Values of a key that has a few; empty for others."""
    is_section: bool = False
    """Whether it has keys of its own and no value."""


def keys_of(config: RunConfig) -> Iterator[Key]:
    """Yield the keys of a run; of a part with several kinds those of its own kind, of an absent part the defaults."""
    yield from _fields(RunConfig, config, "")


def _fields(kind: type, config: Any, prefix: str) -> Iterator[Key]:
    """Yield the keys of a class.

    Args:
        config: its values; None for the defaults.
    """
    types, meanings = get_type_hints(kind, include_extras=True), _meanings(kind)
    for field in dataclasses.fields(kind):
        path, annotation = f"{prefix}{field.name}", types[field.name]
        value = _default(field) if config is None else getattr(config, field.name)
        meaning, classes = meanings.get(field.name, ""), _classes(annotation)
        if field.name == "kind":
            continue  # listed by the field that holds the part
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _part(path, value, meaning, classes)
        else:
            yield Key(path, value, meaning or " ".join(map(_summary, classes[:1])), _choices(annotation))
            if isinstance(value, tuple) and classes:
                for index, item in enumerate(value):
                    yield from _part(f"{path}.{index}", item, "", classes)
            elif value is None and len(classes) == 1:
                yield from _fields(classes[0], None, f"{path}.")


def _part(path: str, config: Any, meaning: str, classes: list[type]) -> Iterator[Key]:
    """Yield the kind of a part, or its section, and its keys."""
    kinds = [field.default for kind in classes for field in dataclasses.fields(kind) if field.name == "kind"]
    if kinds:
        yield Key(f"{path}.kind", config.kind, _summary(type(config)), tuple(kinds))
    else:
        yield Key(path, None, meaning or _summary(type(config)), is_section=True)
    yield from _fields(type(config), config, f"{path}.")


def _default(field: dataclasses.Field) -> Any:
    """Return the default of a field, or ``REQUIRED``."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def _classes(annotation: Any) -> list[type]:
    """Return the configuration classes that a type names, in their order."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _classes(part)]


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Return the values that a type lists, without None."""
    if annotation is bool:
        return (True, False)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(value for part in get_args(annotation) for value in _choices(part))


def _summary(kind: type) -> str:
    """Return the first paragraph of a class's docstring."""
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split())


def _meanings(kind: type) -> dict[str, str]:
    """Return the docstring below each field of a class and of those that it extends."""
    meanings: dict[str, str] = {}
    for parent in reversed(kind.__mro__[:-1]):
        meanings |= _docstrings(parent.__module__).get(parent.__name__, {})
    return meanings


@cache
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """Return the docstrings below the fields of each class of a module, which Python itself does not keep."""
    tree = ast.parse(Path(inspect.getfile(__import__(module, fromlist=["_"]))).read_text(encoding="utf-8"))
    docstrings: dict[str, dict[str, str]] = {}
    for node in tree.body:
        fields = docstrings.setdefault(node.name, {}) if isinstance(node, ast.ClassDef) else {}
        for field, below in zip(getattr(node, "body", []), getattr(node, "body", [])[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    fields[name] = " ".join(text.split())
    return docstrings
