"""What tells several runs apart: the configuration values that differ, and the loss that came of them."""

from pathlib import Path
from typing import Any

import numpy as np

from mythos.config import records
from mythos.config.base import encode, flatten
from mythos.report.read import Run, mean_depth

_OWN = ("run.name", "run.dir")
"""What differs between any two runs."""
_ABSENT = "–"


def named(runs: list[Run], directories: list[Path]) -> dict[str, Run]:
    """Runs by name; where two share one, by the path of their directories."""
    names = [run.config.run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(directory) for directory in directories]
    return dict(zip(names, runs, strict=True))


def differences(runs: dict[str, Run]) -> dict[str, list[Any]]:
    """Dotted path to the value of each run, for all paths whose values differ; a path that a run lacks is a dash."""
    flat = [flatten(encode(run.config)) for run in runs.values()]
    paths = dict.fromkeys(path for values in flat for path in values)
    found = {path: [values.get(path, _ABSENT) for values in flat] for path in paths if path not in _OWN}
    return {path: values for path, values in found.items() if any(value != values[0] for value in values)}


def final_validation(run: Run) -> float:
    """The last validation loss at the depth nearest to the run's mean, in nats per token; NaN without one."""
    depth = mean_depth(run)
    return float("nan") if depth is None else float(run.series[records.validation_loss(depth)].values[-1])


def ranked(runs: dict[str, Run]) -> list[str]:
    """The names of the runs, the lowest final validation loss first and runs without one last."""
    losses = np.array([final_validation(run) for run in runs.values()])
    names = list(runs)
    return [names[index] for index in np.argsort(np.where(np.isfinite(losses), losses, np.inf), kind="stable")]


def in_words(value: Any) -> str:
    """A configuration value as a table shows it."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case None:
            return "null"
        case _:
            return str(value)
