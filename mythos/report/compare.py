"""Compare several runs: the configuration values that differ, and the resulting validation loss."""

from pathlib import Path
from typing import Any

import numpy as np

from mythos.config import records
from mythos.config.base import encode, flatten
from mythos.report.read import Run, nearest_num_loops

Runs = dict[str, Run]
"""Runs by displayed name."""
_OWN = ("run.name", "run.dir")
"""Paths whose values differ between any two runs."""
ABSENT = "–"
"""Stands for a value that a run does not have."""


def named(runs: list[Run], directories: list[Path]) -> Runs:
    """Runs by name; if two runs share a name, by the paths of their directories."""
    names = [run.config.run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(directory) for directory in directories]
    return dict(zip(names, runs, strict=True))


def differences(runs: Runs) -> dict[str, list[Any]]:
    """The values of each run by dotted path, for all paths whose values differ; a dash where a run lacks the path."""
    flat = [flatten(encode(run.config)) for run in runs.values()]
    paths = dict.fromkeys(path for values in flat for path in values)
    by_path = {path: [values.get(path, ABSENT) for values in flat] for path in paths if path not in _OWN}
    return {path: values for path, values in by_path.items() if any(value != values[0] for value in values)}


def final_validation(run: Run) -> float:
    """The last validation loss at ``nearest_num_loops``, in the run's unit of losses; NaN without one."""
    num_loops = nearest_num_loops(run)
    return float("nan") if num_loops is None else float(run.series[records.validation_loss(num_loops)].values[-1])


def ranked(runs: Runs) -> list[str]:
    """The names of the runs, the lowest final validation loss first and runs without one last."""
    losses = np.array([final_validation(run) for run in runs.values()])
    names = list(runs)
    return [names[index] for index in np.argsort(np.where(np.isfinite(losses), losses, np.inf), kind="stable")]


def format_value(value: Any) -> str:
    """A configuration value as text for a table."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case None:
            return "null"
        case _:
            return str(value)
