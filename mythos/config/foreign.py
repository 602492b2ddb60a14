"""The parts of other packages that a run's configuration names, checked before anything costs time."""

from typing import NamedTuple

from mythos.config import plugins
from mythos.config.objective import TERM_PLUGINS
from mythos.config.optim import OPTIMIZER_PLUGINS, ForeignOptimConfig
from mythos.config.run import RunConfig
from mythos.config.tracking import TRACKER_PLUGINS, ForeignTracking


class Chosen(NamedTuple):
    """An entry point that the configuration names, and the dotted path of the field that names it."""

    group: str
    name: str
    path: str


def chosen(config: RunConfig) -> list[Chosen]:
    """Return every entry point that the configuration names."""
    parts = [Chosen(TERM_PLUGINS, name, f"objective.terms.{name}") for name in config.objective.terms]
    if isinstance(config.optim, ForeignOptimConfig):
        parts.append(Chosen(OPTIMIZER_PLUGINS, config.optim.name, "optim.name"))
    if isinstance(config.tracking, ForeignTracking):
        parts.append(Chosen(TRACKER_PLUGINS, config.tracking.name, "tracking.name"))
    return parts


def check(config: RunConfig) -> None:
    """Check that every chosen part is installed, without importing it.

    Raises:
        ConfigError: see ``plugins.find``.
    """
    for part in chosen(config):
        plugins.find(*part)


def load(config: RunConfig) -> None:
    """Import every chosen part, so that a package that cannot be imported ends the run before it starts.

    Raises:
        ConfigError: see ``plugins.load``.
    """
    for part in chosen(config):
        plugins.load(*part, fields=["__call__"])
