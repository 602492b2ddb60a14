"""Results of ``mythos evaluate``, as JSON in a run's directory: ``evaluation/<study>.json``."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from mythos.config.base import ConfigError
from mythos.config.records import SCHEMA
from mythos.config.schema import check_schema
from mythos.files import read_regular, write_text
from mythos.report.saturation import Saturation, fit

FOLDER: Final = "evaluation"
DEPTH_SWEEP: Final = "depth-sweep"
REASONING: Final = "reasoning"
TASKS: Final = "tasks"
_STUDIES: Final = (DEPTH_SWEEP, REASONING, TASKS)
_SAME_SETTING: Final = ("task", "num_loops", "exit_rule", "exit_threshold", "limit", "num_fewshot")
"""Fields that two results of a task must share for the newer one to replace the older."""


def write_study(run: Path, study: str, results: dict[str, Any]) -> Path:
    """Write one study of a run, replacing an earlier one, and return its path.

    Raises:
        ConfigError: the run's directory cannot be written.
    """
    path = run / FOLDER / f"{study}.json"
    try:
        write_text(path, json.dumps({"schema": SCHEMA, **results}, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{path}: the results cannot be written ({error.strerror}); allow writing there.") from None
    return path


def add_task_results(run: Path, results: list[dict[str, Any]]) -> Path:
    """Add results of tasks to those of other loop counts and exit rules; results of the same setting are replaced."""
    before = read_studies(run).get(TASKS, {}).get("results", [])
    settings = [_setting(result) for result in results]
    kept = [result for result in before if _setting(result) not in settings]
    return write_study(run, TASKS, {"results": [*kept, *results]})


def read_studies(run: Path) -> dict[str, dict[str, Any]]:
    """The studies of a run by name; empty without any.

    Raises:
        ConfigError: a file is damaged or of another schema.
    """
    studies = {}
    for study in _STUDIES:
        path = run / FOLDER / f"{study}.json"
        if path.is_file():
            try:
                results = json.loads(read_regular(path))
                schema = results["schema"]
            except (ValueError, KeyError, TypeError):
                raise ConfigError(f"{path}: damaged; delete it and run mythos evaluate again.") from None
            check_schema(str(path), schema, "delete it and run mythos evaluate again")
            studies[study] = results
    return studies


def saturation(sweep: dict[str, Any], mean_depth: float) -> Saturation | None:
    """The curve fitted to a depth sweep's losses at the requested loop counts; None if they do not saturate."""
    num_loops = np.array(sweep["num_loops"])
    return fit(num_loops.astype(np.float64), np.array(sweep["loss"])[num_loops - 1], mean_depth)


def by_rule(points: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The points of a depth sweep by exit rule, those of a rule sorted by mean number of loops."""
    of_rule: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point["mean_loops"]):
        of_rule[point["rule"]].append(point)
    return {rule: of_rule[rule] for rule in dict.fromkeys(point["rule"] for point in points)}


def _setting(result: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(result.get(key) for key in _SAME_SETTING)
