"""What came of each job of a sweep: as text, as JSON and as CSV."""

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
"""With more different keys than this, the text leaves them to the job's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One job."""

    job: str
    overrides: dict[str, str]
    """Key to value, of those that tell the job from others."""
    state: str
    num_starts: int
    step: int
    num_steps: int | None
    """Steps of the whole run; None before it has begun, as with all that follows."""
    last: dict[int, float]
    """Last validation loss by depth, in nats per token."""
    best: dict[int, float]
    """Lowest validation loss by depth."""
    tokens_per_second: float | None
    wall_seconds: float
    """Over all starts that have ended."""


def read_rows(directory: Path) -> list[Row]:
    """One row a job, in the plan's order.

    Raises:
        ConfigError: the directory is no sweep.
    """
    return [_row(job) for job in read_jobs(directory)]


def write_table(directory: Path, rows: list[Row]) -> None:
    """Write ``table.json`` and ``table.csv`` into the sweep's directory."""
    write_text(directory / JSON_FILE, json.dumps([asdict(row) for row in rows], indent=1))
    keys, depths = _keys(rows), _depths(rows)
    text = io.StringIO()
    writer = csv.writer(text)
    losses = [f"{kind}_val_loss_T{depth}" for depth in depths for kind in ("last", "best")]
    head = ["job", *keys, "state", "starts", "step", "num_steps", *losses, "tokens_per_second", "wall_seconds"]
    writer.writerow(head)
    for row in rows:
        values = [row.overrides.get(key) for key in keys]
        found = [column.get(depth) for depth in depths for column in (row.last, row.best)]
        counts = [row.state, row.num_starts, row.step, row.num_steps]
        writer.writerow([row.job, *values, *counts, *found, row.tokens_per_second, row.wall_seconds])
    write_text(directory / CSV_FILE, text.getvalue())


def as_text(rows: list[Row]) -> str:
    """Aligned columns; a loss that was lower before its last look is followed by its best in brackets."""
    keys, depths = _keys(rows), _depths(rows)
    keys = keys if len(keys) <= _MAX_KEYS else []
    lines = [["job", *keys, "state", "step", *(f"T={depth}" for depth in depths), "tokens/s", "wall time"]]
    for row in rows:
        steps = str(row.step) if row.num_steps is None else f"{row.step}/{row.num_steps}"
        losses = [_loss(row, depth) for depth in depths]
        speed = "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}"
        values = [_short(row.overrides.get(key, "")) for key in keys]
        lines.append([row.job, *values, row.state, steps, *losses, speed, duration(row.wall_seconds)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(padded)


def _row(job: Job) -> Row:
    record = job.record
    said: dict[str, Any] = {
        "job": record.name,
        "overrides": dict(_split(override) for override in record.overrides if "=" in override),
        "state": job.state,
        "num_starts": record.num_starts,
        "wall_seconds": round(record.seconds, 1),
    }
    try:
        run = read_run(job.directory)
    except ConfigError:  # nothing recorded yet
        return Row(**said, step=0, num_steps=None, last={}, best={}, tokens_per_second=None)
    return Row(**said, **_of_run(run))


def _of_run(run: Run) -> dict[str, Any]:
    depths = by_index(run.series, records.validation_loss)
    speed = run.series.get(records.MEAN_TOKENS_PER_SECOND)
    return {
        "step": int(run.series["time"].steps[-1]),
        "num_steps": run.config.run.num_steps,
        "last": {depth: float(series.values[-1]) for depth, series in depths.items()},
        "best": {depth: _lowest(series) for depth, series in depths.items()},
        "tokens_per_second": None if speed is None else round(float(speed.values[-1]), 1),
    }


def _lowest(series: Series) -> float:
    finite = series.values[np.isfinite(series.values)]
    return float(finite.min()) if finite.size else float("nan")


def _loss(row: Row, depth: int) -> str:
    if depth not in row.last:
        return ""
    last, best = row.last[depth], row.best[depth]
    return f"{last:.4f}" if last == best else f"{last:.4f} ({best:.4f})"


def _short(value: str) -> str:
    """A number in four digits; words as they are."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value.strip("'")


def _keys(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.overrides))


def _depths(rows: list[Row]) -> list[int]:
    return sorted({depth for row in rows for depth in row.last})
