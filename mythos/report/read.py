"""Reads a run directory back: its configuration and its metrics as columns."""

import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mythos.config import records
from mythos.config.base import ConfigError, decode
from mythos.config.run import RunConfig
from mythos.report.evaluations import read_studies

_ALWAYS: Final = {"step", "time", "tokens"}
"""What every record holds."""


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
    """What one run directory says."""

    config: RunConfig
    series: dict[str, Series]
    """Metric name to its values, with ``time`` (Unix seconds) and ``tokens`` among them."""
    arrays: dict[str, npt.NDArray[np.float64]] = {}  # noqa: RUF012  (never written to)
    """Arrays of the last trace, by name; empty where there is none."""
    evaluations: dict[str, dict[str, Any]] = {}  # noqa: RUF012
    """What ``mythos evaluate`` found, by study; see ``report.evaluations``."""


def read_run(directory: Path) -> Run:
    """Read ``config.json`` and ``metrics.jsonl`` of a run directory.

    Raises:
        ConfigError: the directory is no run, holds nothing yet, or was written by another version.
    """
    for path in (directory / "config.json", directory / records.FILE_NAME):
        if not path.is_file():
            raise ConfigError(
                f"{directory}: no run, for it holds no {path.name}; "
                "give the folder that mythos train wrote, for instance runs/quickstart."
            )
    series = read_series(directory / records.FILE_NAME)
    arrays = read_arrays(directory / records.TRACE_FILE_NAME)
    return Run(_read_config(directory / "config.json"), series, arrays, read_studies(directory))


def read_series(path: Path) -> dict[str, Series]:
    """Read ``metrics.jsonl`` as columns.

    A last line that is torn is left out, for the run may be writing it now. A run that resumes from a
    checkpoint steps back: what it records again replaces everything from that step on.

    Raises:
        ConfigError: no record, another schema, or a line that is no record.
    """
    columns: defaultdict[str, dict[int, float]] = defaultdict(dict)
    last_step = -1
    for record in _read_records(path):
        step = int(record.pop("step"))
        if step < last_step:
            for name, column in columns.items():
                columns[name] = {kept: value for kept, value in column.items() if kept < step}
        last_step = step
        for name, value in record.items():
            columns[name][step] = value
    return {name: _series(column) for name, column in columns.items() if column}


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """The arrays of the last whole line of ``trace.jsonl``; empty without one.

    Raises:
        ConfigError: another schema.
    """
    lines = path.read_bytes().splitlines() if path.is_file() else []
    if lines:
        _check_schema(path, _parse(lines[0]) or {})
    for line in reversed(lines[1:]):
        try:
            record = json.loads(line)
            return {
                name: np.array(value, dtype=np.float64) for name, value in record.items() if isinstance(value, list)
            }
        except ValueError:  # torn, for the run may be writing it
            continue
    return {}


def by_index(series: dict[str, Series], name_of: Callable[[int], str]) -> dict[int, Series]:
    """The series of one family, sorted by loop or depth; ``name_of`` is a naming function of ``records``."""
    indices = {index for name in series if (index := records.index_of(name)) is not None}
    return {index: series[name_of(index)] for index in sorted(indices) if name_of(index) in series}


def by_layer(series: dict[str, Series], name_of: Callable[[int, int], str]) -> dict[int, dict[int, Series]]:
    """The series of a family with one value per layer and loop, by layer and by loop."""
    indices = {(records.layer_of(name), records.index_of(name)) for name in series}
    found: dict[int, dict[int, Series]] = {}
    for layer, loop in sorted((layer, loop) for layer, loop in indices if layer is not None and loop is not None):
        if (name := name_of(layer, loop)) in series:
            found.setdefault(layer, {})[loop] = series[name]
    return found


def with_prefix(run: Run, prefix: str) -> dict[str, Series]:
    """The series whose names begin with ``prefix``, by the rest of their names, in alphabetical order."""
    return {name.removeprefix(prefix): run.series[name] for name in sorted(run.series) if name.startswith(prefix)}


def mean_depth(run: Run) -> int | None:
    """The validated depth nearest to the mean depth of training, the deeper of two, if any."""
    depths = by_index(run.series, records.validation_loss)
    return min(reversed(depths), key=lambda depth: abs(depth - run.config.depth.mean), default=None)


def _read_config(path: Path) -> RunConfig:
    try:
        return decode(RunConfig, json.loads(path.read_text()))
    except ValueError as error:
        mistake = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: not a configuration of this version ({mistake}); "
            "make the report with the version of mythos that trained the run."
        ) from None


def _read_records(path: Path) -> list[dict[str, float]]:
    """Every record of the file in order, without the lines that say the schema."""
    found = []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is not None and (number == 1 or "schema" in record):
            _check_schema(path, record)
        elif record is not None and record.keys() >= _ALWAYS:
            found.append(record)
        elif number < len(lines):
            raise ConfigError(
                f"{path}: line {number} is no record, which is a JSON object of numbers with "
                f"{', '.join(sorted(_ALWAYS))}; delete that line."
            )
    if not found:
        raise ConfigError(f"{path}: holds no record yet; wait until the run has logged a step.")
    return found


def _parse(line: bytes) -> dict[str, float] | None:
    try:
        return {name: math.nan if value is None else float(value) for name, value in json.loads(line).items()}
    except (AttributeError, TypeError, ValueError):
        return None


def _check_schema(path: Path, record: dict[str, float]) -> None:
    given = record.get("schema")
    if given != records.SCHEMA:
        told = "none" if given is None else f"{given:g}"
        raise ConfigError(
            f"{path}: the schema of its records is {told} but this version reads {records.SCHEMA}; "
            "make the report with the version of mythos that trained the run."
        )


def _series(column: dict[int, float]) -> Series:
    return Series(np.array(list(column), dtype=np.int64), np.array(list(column.values())))
