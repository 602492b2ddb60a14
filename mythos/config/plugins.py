"""Parts that other installed packages provide through entry points; a package is imported only when it is chosen."""

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from mythos.config.base import ConfigError, suggestion

PluginName = Annotated[str, Field(pattern=r"^[\w-]+$")]
"""Name of an entry point; letters, digits, ``_`` and ``-``, since metrics and overrides contain it."""


class Plugin(NamedTuple):
    """One entry point, and the distribution that declares it."""

    name: str
    package: str
    version: str


def names(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, in alphabetical order, without importing them."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def described(group: str) -> list[Plugin]:
    """Return name, package and version of every entry point of a group, without importing them."""
    return sorted(_described(point) for point in entry_points(group=group))


def find(group: str, name: str, path: str) -> EntryPoint:
    """Return the entry point of that name, without importing it.

    Args:
        path: dotted path of the configuration's field that names it; messages begin with it.

    Raises:
        ConfigError: no installed package declares the name, or several do.
    """
    declared = [point for point in entry_points(group=group) if point.name == name]
    if not declared:
        raise ConfigError(
            f"{path}: {name!r} was given, but no installed package declares it under the entry points {group!r}; "
            f"{suggestion(name, list(names(group)))}"
        )
    if len(declared) > 1:
        packages = " and ".join(sorted(_described(point).package for point in declared))
        raise ConfigError(
            f"{path}: {name!r} was given, but {len(declared)} installed packages, {packages}, declare it under the "
            f"entry points {group!r}; uninstall all but one."
        )
    return declared[0]


def load(group: str, name: str, path: str, fields: Sequence[str] = ()) -> Any:
    """Import the entry point of that name.

    Args:
        path: dotted path of the configuration's field that names it; messages begin with it.
        fields: attributes that the imported object must have.

    Raises:
        ConfigError: the name is unknown or ambiguous, the import fails, or a field is missing.
    """
    point = find(group, name, path)
    origin = "{} {}".format(*_described(point)[1:])
    try:
        part = point.load()
    except Exception as error:  # a foreign module may raise anything
        raise ConfigError(
            f"{path}: {point.value} of {origin} cannot be imported ({_reason(error)}); repair that package or choose "
            "another."
        ) from error
    if missing := [field for field in fields if not hasattr(part, field)]:
        raise ConfigError(
            f"{path}: {point.value} of {origin} lacks {', '.join(missing)}; it needs {', '.join(fields)}."
        )
    return part


def build(group: str, name: str, path: str, *arguments: Any, options: dict[str, Any]) -> Any:
    """Import the entry point of that name and call it with the arguments and the configured options.

    Args:
        path: dotted path of the section that has the fields ``name`` and ``options``.

    Raises:
        ConfigError: see ``load``; or the call refuses the options by a TypeError or a ValueError.
    """
    part = load(group, name, f"{path}.name", fields=["__call__"])
    try:
        return part(*arguments, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}.options: {name} refuses {options} ({_reason(error)}); set the options that it takes."
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _described(point: EntryPoint) -> Plugin:
    if point.dist is None:
        return Plugin(point.name, "an unknown package", "")
    return Plugin(point.name, point.dist.name, point.dist.version)
