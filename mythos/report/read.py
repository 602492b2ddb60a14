"""Reads a run directory: its configuration and its metrics as columns."""

import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.config.schema import OtherSchema, check_schema, decode_run
from mythos.files import read_regular
from mythos.report.evaluations import read_studies
from mythos.report.units import NATS, Text, read_text

_ALWAYS: Final = {"step", "time", "tokens"}
"""Keys of every line of metrics."""


class Series(NamedTuple):
    """One metric over the run."""

    steps: npt.NDArray[np.int64]
    """Optimiser steps finished, strictly increasing."""
    values: npt.NDArray[np.float64]

    @classmethod
    def of(cls, steps: list[int], values: list[float]) -> "Series":
        """A series from lists."""
        return cls(np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64))


class Run(NamedTuple):
    """The contents of one run directory."""

    config: RunConfig
    series: dict[str, Series]
    """Metric name to its values, with ``time`` (Unix seconds) and ``tokens`` among them."""
    arrays: dict[str, npt.NDArray[np.float64]] = {}  # noqa: RUF012  (never written to)
    """Arrays of the last line of ``trace.jsonl``, by name; empty without one."""
    evaluations: dict[str, dict[str, Any]] = {}  # noqa: RUF012
    """Results of ``mythos evaluate``, by study; see ``report.evaluations``."""
    text: Text | None = None
    """The held-out text, where the run's directory states it."""
    loss_unit: str = NATS
    """Unit of all losses in ``series`` and ``evaluations``."""
    in_nats: "Run | None" = None
    """The run as it was read, if its losses have been converted to another unit."""


def read_run(directory: Path) -> Run:
    """Read ``config.json`` and ``metrics.jsonl`` of a run directory.

    Raises:
        ConfigError: the directory is not a run, has no metrics yet, or was written by another version.
    """
    for path in (directory / "config.json", directory / records.FILE_NAME):
        if not path.is_file():
            raise ConfigError(
                f"{directory}: not a run, because it has no {path.name}; "
                "give the folder that mythos train wrote, for instance runs/quickstart."
            )
    series = read_series(directory / records.FILE_NAME)
    arrays = read_arrays(directory / records.TRACE_FILE_NAME)
    config = _read_config(directory / "config.json")
    return Run(config, series, arrays, read_studies(directory), read_text(directory, config))


def read_series(path: Path) -> dict[str, Series]:
    """Read ``metrics.jsonl`` as columns.

    An incomplete last line is ignored, since the run may be writing it. A run that resumes from a checkpoint
    steps back: what it logs then replaces everything from that step on.

    Raises:
        ConfigError: no metrics, another schema, or a line that is not a line of metrics.
    """
    columns: defaultdict[str, dict[int, float]] = defaultdict(dict)
    last_step = -1
    for metrics in _read_lines(path):
        step = int(metrics.pop("step"))
        if step < last_step:
            for name, column in columns.items():
                columns[name] = {kept: value for kept, value in column.items() if kept < step}
        last_step = step
        for name, value in metrics.items():
            columns[name][step] = value
    return {name: _series(column) for name, column in columns.items() if column}


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """The arrays of the last complete line of ``trace.jsonl``; empty without one.

    Raises:
        ConfigError: another schema.
    """
    lines = read_regular(path).splitlines() if path.is_file() else []
    if lines:
        _check_schema(path, _parse(lines[0]) or {})
    for line in reversed(lines[1:]):
        try:
            arrays = json.loads(line)
            return {
                name: np.array(value, dtype=np.float64) for name, value in arrays.items() if isinstance(value, list)
            }
        except ValueError:  # incomplete, since the run may be writing it
            continue
    return {}


def by_index(series: dict[str, Series], name_of: Callable[[int], str]) -> dict[int, Series]:
    """The series of one family by loop or number of loops, sorted; ``name_of`` is a naming function of ``records``."""
    indices = {index for name in series if (index := records.index_of(name)) is not None}
    return {index: series[name_of(index)] for index in sorted(indices) if name_of(index) in series}


def by_layer(series: dict[str, Series], name_of: Callable[[int, int], str]) -> dict[int, dict[int, Series]]:
    """The series of a family with one value per layer and loop, by layer and by loop."""
    indices = {(records.layer_of(name), records.index_of(name)) for name in series}
    by_loop: dict[int, dict[int, Series]] = {}
    for layer, loop in sorted((layer, loop) for layer, loop in indices if layer is not None and loop is not None):
        if (name := name_of(layer, loop)) in series:
            by_loop.setdefault(layer, {})[loop] = series[name]
    return by_loop


def with_prefix(run: Run, prefix: str) -> dict[str, Series]:
    """The series whose names begin with ``prefix``, by the rest of their names, in alphabetical order."""
    return {name.removeprefix(prefix): run.series[name] for name in sorted(run.series) if name.startswith(prefix)}


def nearest_num_loops(run: Run) -> int | None:
    """The validated number of loops nearest to the mean depth of training, the larger of two; None without one."""
    losses = by_index(run.series, records.validation_loss)
    return min(reversed(losses), key=lambda num_loops: abs(num_loops - run.config.depth.mean), default=None)


def _read_config(path: Path) -> RunConfig:
    try:
        return decode_run(json.loads(read_regular(path)), str(path))
    except OtherSchema:
        raise
    except ValueError as error:
        mistake = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: not a configuration of this version ({mistake}); "
            "make the report with the version of mythos that trained the run."
        ) from None


def _read_lines(path: Path) -> list[dict[str, float]]:
    """All lines of metrics of the file in order, without the lines that specify the schema."""
    result = []
    lines = read_regular(path).splitlines()
    for number, line in enumerate(lines, start=1):
        metrics = _parse(line)
        if metrics is not None and (number == 1 or "schema" in metrics):
            _check_schema(path, metrics)
        elif metrics is not None and metrics.keys() >= _ALWAYS:
            result.append(metrics)
        elif number < len(lines):
            raise ConfigError(
                f"{path}: line {number} is not a JSON object of numbers with {', '.join(sorted(_ALWAYS))}; "
                "delete that line."
            )
    if not result:
        raise ConfigError(f"{path}: has no metrics yet; wait until the run has logged a step.")
    return result


def _parse(line: bytes) -> dict[str, float] | None:
    try:
        return {name: math.nan if value is None else float(value) for name, value in json.loads(line).items()}
    except (AttributeError, TypeError, ValueError):
        return None


def _check_schema(path: Path, first: dict[str, float]) -> None:
    schema = first.get("schema")
    number = None if schema is None else int(schema)
    check_schema(str(path), number, "make the report with the version that trained the run")


def _series(column: dict[int, float]) -> Series:
    return Series(np.array(list(column), dtype=np.int64), np.array(list(column.values())))
