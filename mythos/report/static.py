"""Runs as static SVG files: the files, and the runs that each of them shows."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mythos.config.base import ConfigError
from mythos.files import write_text
from mythos.report import static_draw as draw
from mythos.report.comparable import comparable
from mythos.report.read import Run, read_run
from mythos.report.static_series import read_depth_sweep, read_exits, read_losses, read_norms
from mythos.report.static_style import MAX_RUNS, LineStyle, line_styles


class _Kind(NamedTuple):
    """One file."""

    file: str
    read: Callable[[Run], Any]
    """Reads the data of a run; None if the run lacks them."""
    draw: Callable[[dict[str, Any], dict[str, LineStyle]], str]
    """Draws the data, by name of the run, as SVG text."""
    lacks: str
    """What a run without these data lacks, and how to get it."""
    is_of_first: bool = False
    """Whether only the first run with these data is shown."""


_KINDS: Final = (
    _Kind("loss.svg", read_losses, draw.losses, "validation and mean depth logged (run.validation.every)"),
    _Kind("depth.svg", read_depth_sweep, draw.depth_sweeps, "depth sweep (mythos evaluate RUN depth-sweep)"),
    _Kind("norms.svg", read_norms, draw.norms, "loop statistics logged (telemetry.trace_every)"),
    _Kind("exits.svg", read_exits, draw.exits, "depth sweep with exit rules (mythos evaluate RUN depth-sweep)", True),
)


def write_figures(directories: Sequence[Path], folder: Path) -> list[str]:
    """Write every figure that has data, and return a line for each: its path, or why it is not written.

    Raises:
        ConfigError: a directory is not a run or is given twice, the runs have nothing to draw, there are more than a
            figure can distinguish, or a file cannot be written.
    """
    if len(directories) > MAX_RUNS:
        raise ConfigError(
            f"RUN: {len(directories)} runs were given, but a figure can distinguish at most {MAX_RUNS}; give fewer, or "
            "show all of them with mythos report --sweep."
        )
    runs = {name: read_run(directory) for name, directory in zip(labels(directories), directories, strict=True)}
    runs, note = comparable(runs)
    style_of = line_styles(runs)
    texts, lines = {}, [] if note is None else [note]
    for kind in _KINDS:
        data = {name: shown for name, run in runs.items() if (shown := kind.read(run)) is not None}
        if not data:
            lines.append(f"{kind.file} is not written: no {kind.lacks}")
            continue
        texts[folder / kind.file] = kind.draw(data, style_of)
        lines.append(f"{folder / kind.file}{_shown(kind, list(data), list(runs))}")
    if not texts:
        raise ConfigError(
            f"{', '.join(map(str, directories))}: nothing to draw yet; wait for the first validation "
            "(run.validation.every), or run mythos evaluate RUN depth-sweep first."
        )
    for path, text in texts.items():
        _write(path, text)
    return lines


def labels(directories: Sequence[Path]) -> list[str]:
    """The paths of the runs relative to the folder that contains them all: their names, if they are siblings.

    Raises:
        ConfigError: a directory is given twice.
    """
    paths = [directory.resolve() for directory in directories]
    for directory, path in zip(directories, paths, strict=True):
        if (count := paths.count(path)) > 1:
            raise ConfigError(f"{directory}: the run was given {count} times; give it once.")
    parent = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(parent).as_posix() for path in paths]


def _shown(kind: _Kind, drawn: list[str], names: list[str]) -> str:
    """Which of the runs a figure shows, if not all of them."""
    if kind.is_of_first:
        return f" of {drawn[0]}" if len(names) > 1 else ""
    absent = [name for name in names if name not in drawn]
    return f" without {', '.join(absent)}: no {kind.lacks}" if absent else ""


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(
            f"{path}: the figure cannot be written ({error.strerror}); make room there or allow writing."
        ) from None
