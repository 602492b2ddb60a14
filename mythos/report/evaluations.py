"""What ``mythos evaluate`` found, as JSON beside a run's records: ``evaluation/<study>.json``."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from mythos.config.base import ConfigError
from mythos.files import write_text
from mythos.report.saturation import Saturation, fit

SCHEMA: Final = 1
FOLDER: Final = "evaluation"
DEPTH_SWEEP: Final = "depth-sweep"
REASONING: Final = "reasoning"
TASKS: Final = "tasks"
_STUDIES: Final = (DEPTH_SWEEP, REASONING, TASKS)
_SAME_SETTING: Final = ("task", "num_loops", "exit_rule", "exit_threshold", "limit", "num_fewshot")
"""What two results of a task must share for the newer one to replace the older."""


def write_study(run: Path, study: str, found: dict[str, Any]) -> Path:
    """Write one study of a run, in place of an earlier one, and return its path.

    Raises:
        ConfigError: the run's directory cannot be written.
    """
    path = run / FOLDER / f"{study}.json"
    try:
        write_text(path, json.dumps({"schema": SCHEMA, **found}, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{path}: the results cannot be written ({error.strerror}); allow writing there.") from None
    return path


def add_task_results(run: Path, results: list[dict[str, Any]]) -> Path:
    """Put results of tasks beside those of other depths and rules; those of the same setting are replaced."""
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
                found = json.loads(path.read_text(encoding="utf-8"))
                schema = found["schema"]
            except (ValueError, KeyError, TypeError):
                raise ConfigError(f"{path}: damaged; delete it, or write it again with mythos evaluate.") from None
            if schema != SCHEMA:
                raise ConfigError(f"{path}: schema {schema}, but this version reads {SCHEMA}; write it again.")
            studies[study] = found
    return studies


def saturation(found: dict[str, Any], mean_depth: float) -> Saturation | None:
    """The curve through a depth sweep's losses at the depths that were asked for; None where they do not saturate."""
    depths = np.array(found["depths"])
    return fit(depths.astype(np.float64), np.array(found["loss"])[depths - 1], mean_depth)


def by_rule(points: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The exit rules of a depth sweep, each with its thresholds in the order of their mean passes."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point["mean_loops"]):
        found[point["rule"]].append(point)
    return {rule: found[rule] for rule in dict.fromkeys(point["rule"] for point in points)}


def _setting(result: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(result.get(key) for key in _SAME_SETTING)
