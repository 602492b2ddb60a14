"""The results of each job of a sweep: as text, as JSON and as CSV."""

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.files import write_text
from mythos.report.facts import duration
from mythos.report.jobs import Job, read_jobs
from mythos.report.read import Run, Series, by_index, read_run

JSON_FILE: Final = "table.json"
CSV_FILE: Final = "table.csv"
_MAX_KEYS = 4
"""With more differing keys than this, the text leaves them out, since the job's name has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The results of one job."""

    job: str
    overrides: dict[str, str]
    """The overrides that distinguish the job from others, key to value."""
    state: str
    num_starts: int
    step: int
    num_steps: int | None
    """Steps of the whole run; None before the run has logged a step."""
    last: dict[int, float]
    """Last validation loss in nats per token, by number of loops; empty before the first validation."""
    best: dict[int, float]
    """Lowest validation loss, by number of loops."""
    tokens_per_second: float | None
    wall_seconds: float
    """Wall time over all starts that have ended."""


def read_rows(directory: Path) -> list[Row]:
    """Read one row per job, in the plan's order.

    Raises:
        ConfigError: the directory is not a sweep.
    """
    return [_row(job) for job in read_jobs(directory)]


def write_table(directory: Path, rows: list[Row]) -> None:
    """Write ``table.json`` and ``table.csv`` into the sweep's directory."""
    write_text(directory / JSON_FILE, json.dumps([asdict(row) for row in rows], indent=1))
    keys, loop_counts = _keys(rows), _loop_counts(rows)
    text = io.StringIO()
    writer = csv.writer(text)
    losses = [f"{kind}_val_loss_T{num_loops}" for num_loops in loop_counts for kind in ("last", "best")]
    head = ["job", *keys, "state", "starts", "step", "num_steps", *losses, "tokens_per_second", "wall_seconds"]
    writer.writerow(head)
    for row in rows:
        values = [row.overrides.get(key) for key in keys]
        row_losses = [column.get(num_loops) for num_loops in loop_counts for column in (row.last, row.best)]
        counts = [row.state, row.num_starts, row.step, row.num_steps]
        writer.writerow([row.job, *values, *counts, *row_losses, row.tokens_per_second, row.wall_seconds])
    write_text(directory / CSV_FILE, text.getvalue())


def as_text(rows: list[Row]) -> str:
    """Aligned columns; a last loss that is not the lowest is followed by the lowest in brackets."""
    keys, loop_counts = _keys(rows), _loop_counts(rows)
    keys = keys if len(keys) <= _MAX_KEYS else []
    lines = [["job", *keys, "state", "step", *(f"T={num_loops}" for num_loops in loop_counts), "tokens/s", "wall time"]]
    for row in rows:
        steps = str(row.step) if row.num_steps is None else f"{row.step}/{row.num_steps}"
        losses = [_loss(row, num_loops) for num_loops in loop_counts]
        speed = "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}"
        values = [_short(row.overrides.get(key, "")) for key in keys]
        lines.append([row.job, *values, row.state, steps, *losses, speed, duration(row.wall_seconds)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(padded)


def _row(job: Job) -> Row:
    record = job.record
    fields: dict[str, Any] = {
        "job": record.name,
        "overrides": dict(_split(override) for override in record.overrides if "=" in override),
        "state": job.state,
        "num_starts": record.num_starts,
        "wall_seconds": record.wall_seconds,
    }
    try:
        run = read_run(job.directory)
    except ConfigError:  # nothing logged yet
        return Row(**fields, step=0, num_steps=None, last={}, best={}, tokens_per_second=None)
    return Row(**fields, **_of_run(run))


def _of_run(run: Run) -> dict[str, Any]:
    losses = by_index(run.series, records.validation_loss)
    speed = run.series.get(records.MEAN_TOKENS_PER_SECOND)
    return {
        "step": int(run.series["time"].steps[-1]),
        "num_steps": run.config.run.num_steps,
        "last": {num_loops: float(series.values[-1]) for num_loops, series in losses.items()},
        "best": {num_loops: _lowest(series) for num_loops, series in losses.items()},
        "tokens_per_second": None if speed is None else round(float(speed.values[-1]), 1),
    }


def _lowest(series: Series) -> float:
    finite = series.values[np.isfinite(series.values)]
    return float(finite.min()) if finite.size else float("nan")


def _loss(row: Row, num_loops: int) -> str:
    if num_loops not in row.last:
        return ""
    last, best = row.last[num_loops], row.best[num_loops]
    return f"{last:.4f}" if last == best else f"{last:.4f} ({best:.4f})"


def _short(value: str) -> str:
    """A number with four significant digits; other text as it is."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value.strip("'")


def _keys(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.overrides))


def _loop_counts(rows: list[Row]) -> list[int]:
    return sorted({num_loops for row in rows for num_loops in row.last})
