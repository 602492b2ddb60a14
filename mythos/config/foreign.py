"""The parts of other packages that a run's configuration names, checked before anything costs time."""

from typing import NamedTuple

from mythos.config import part_spec, parts, plugins
from mythos.config.objective import TERM_PLUGINS
from mythos.config.optim import OPTIMIZER_PLUGINS, ForeignOptimConfig
from mythos.config.run import RunConfig
from mythos.config.tracking import TRACKER_PLUGINS, ForeignTracking


class Chosen(NamedTuple):
    """An entry point that the configuration names."""

    group: str
    name: str
    path: str
    """Dotted path of the field that names it."""
    fields: tuple[str, ...] = ("__call__",)
    """Attributes that the object must have."""


def chosen(config: RunConfig) -> list[Chosen]:
    """Return every entry point that the configuration names."""
    entries = [
        Chosen(parts.ENTRY_POINTS, part.name, f"model.loop.parts.{index}.name", part_spec.FIELDS)
        for index, part in enumerate(config.model.loop.parts)
        if isinstance(part, parts.ForeignPart)
    ]
    entries += [Chosen(TERM_PLUGINS, name, f"objective.terms.{name}") for name in config.objective.terms]
    if isinstance(config.optim, ForeignOptimConfig):
        entries.append(Chosen(OPTIMIZER_PLUGINS, config.optim.name, "optim.name"))
    if isinstance(config.tracking, ForeignTracking):
        entries.append(Chosen(TRACKER_PLUGINS, config.tracking.name, "tracking.name"))
    return entries


def check(config: RunConfig) -> None:
    """Check that every chosen part is installed, without importing it.

    Raises:
        ConfigError: see ``plugins.find``.
    """
    for part in chosen(config):
        plugins.find(part.group, part.name, part.path)


def load(config: RunConfig) -> None:
    """Import every chosen part, so that a package that cannot be imported ends the run before it starts.

    Raises:
        ConfigError: see ``plugins.load`` and ``parts.check_parts``.
    """
    for part in chosen(config):
        plugins.load(*part)
    parts.check_parts(config.model)
