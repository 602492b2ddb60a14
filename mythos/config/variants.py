"""Keys of an experiment that the command line makes obsolete by choosing another variant of their group."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mythos.config.base import flatten, unknown_keys
from mythos.config.run import RunConfig


class Obsolete(NamedTuple):
    """A key of the experiment that the chosen variant of its group does not have."""

    path: str
    value: Any
    chosen: str
    """The override that chose the variant."""
    experiment: str
    """The override that chose the experiment."""

    def __str__(self) -> str:
        return f"{self.chosen} has no {self.path}; {self.path}={self.value} of {self.experiment} is dropped."


def obsolete_keys(overrides: list[str], compose: Callable[[list[str]], dict[str, Any]]) -> list[Obsolete]:
    """Return the keys that the experiment sets for the variant that it expects, and that the chosen one does not have.

    The experiment's other keys stay, as do all keys of the command line: an unknown one there is a mistake.

    Args:
        compose: composes overrides into plain data.
    """
    choices = {key: override for override in overrides if (key := _group(override)) in RunConfig.__dataclass_fields__}
    experiments = [override for override in overrides if _group(override) == "experiment"]
    if not choices or not experiments:
        return []
    expected, chosen = compose(experiments), compose([*experiments, *choices.values()])
    unknown = unknown_keys(RunConfig, chosen) - unknown_keys(RunConfig, expected)
    if not unknown:
        return []
    of_experiment = flatten(expected).keys() - flatten(compose(list(choices.values()))).keys()
    return [
        Obsolete(path, value, choices[group], experiments[-1])
        for path, value in flatten(chosen).items()
        if path in of_experiment and (group := path.partition(".")[0]) in choices and _is_below(path, unknown)
    ]


def _group(override: str) -> str | None:
    """Return the group of which an override chooses an option."""
    choice = re.fullmatch(r"\+{0,2}(\w+)=[\w.-]+", override)
    return None if choice is None else choice[1]


def _is_below(path: str, unknown: set[str]) -> bool:
    return any(path == key or path.startswith(f"{key}.") for key in unknown)
