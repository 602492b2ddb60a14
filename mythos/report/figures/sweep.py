"""A plot of many runs: the configuration values that differ, against the final validation loss."""

import math
from typing import Any, NamedTuple

import numpy as np

from mythos.report import draw
from mythos.report.compare import Runs, differences, final_validation, format_value
from mythos.report.draw import go
from mythos.report.figures.compare import colors
from mythos.report.read import Series
from mythos.report.reduce import Floats
from mythos.report.units import NATS

_LOG_SPAN = 20.0
"""Positive numbers that span more than this factor have a logarithmic axis."""
_MAX_TICKS = 10
_MAX_LETTERS = 24
"""Letters of a label on an axis; hovering shows the whole label."""


_MAX_LABEL = 14
"""Letters of a label on one line."""
_LETTER_PIXELS = 7
_GAP_LETTERS = 4


class Axis(NamedTuple):
    """One vertical axis of the plot; positions run from 0 at the bottom to 1 at the top."""

    label: str
    positions: list[float]
    """Position of each run."""
    ticks: list[tuple[float, str]]


def parallel_coordinates(runs: Runs) -> go.Figure | None:
    """One line per run through its values and its loss; runs without a finite loss are left out."""
    losses = {name: loss for name, run in runs.items() if math.isfinite(loss := final_validation(run))}
    if len(losses) < 2:
        return None
    shown = {name: runs[name] for name in losses}
    axes = [axis_of(path, values) for path, values in differences(shown).items()]
    unit = next(iter(runs.values())).loss_unit
    name_of_loss = "validation loss" if unit == NATS else f"validation loss, {unit}"
    axes.append(axis_of(name_of_loss, list(losses.values())))
    color, crossings = colors(runs), np.arange(len(axes))
    traces = []
    for index, (name, loss) in enumerate(losses.items()):
        through = Series(crossings, np.array([axis.positions[index] for axis in axes]))
        hover = f"{name}<br>loss {loss:.4f}<br>" + "%{text}<extra></extra>"
        texts = [f"{path}: {format_value(values[index])}" for path, values in differences(shown).items()]
        text = [*texts, f"{name_of_loss}: {loss:.4f}"]
        traces.append(draw.curve(through, name, color[name], width=2, text=text, hovertemplate=hover))
    xaxis = {
        "tickvals": crossings,
        "ticktext": ["<br>".join(_label_lines(axis)) for axis in axes],
        "side": "top",
        "showline": False,
        "ticks": "",
        "range": [-0.3, len(axes) - 0.55],
    }
    letters = sum(max(map(len, _lines(axis))) + _GAP_LETTERS for axis in axes)
    meta = {"min_width": _LETTER_PIXELS * letters}
    figure = draw.figure(traces, xaxis, {"visible": False}, showlegend=False, hovermode="closest", meta=meta)
    for crossing, axis in enumerate(axes):
        figure.add_shape(type="line", x0=crossing, x1=crossing, y0=0, y1=1, line={"width": 1}, layer="below")
        for position, word in axis.ticks:
            figure.add_annotation(x=crossing, y=position, text=word, showarrow=False, xanchor="left", xshift=7)
    return figure


def axis_of(path: str, values: list[Any]) -> Axis:
    """A linear or logarithmic axis for numbers; an axis with one position per distinct value for anything else."""
    label = path.removeprefix("model.")
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        is_log = low > 0 and high / low > _LOG_SPAN
        distinct = sorted(set(values))
        ticks = distinct if len(distinct) <= _MAX_TICKS else np.linspace(low, high, 6).tolist()
        numbers = np.log10 if is_log else np.asarray
        return _spread(label, numbers(values), numbers(ticks), [f"{value:.4g}" for value in ticks])
    words = sorted({format_value(value) for value in values})
    numbers_of_words = [words.index(format_value(value)) for value in values]
    short = [word if len(word) <= _MAX_LETTERS else f"{word[: _MAX_LETTERS - 1]}…" for word in words]
    return _spread(label, np.array(numbers_of_words), np.arange(len(words), dtype=float), short)


def _lines(axis: Axis) -> list[str]:
    """The lines of text that need room on the axis: those of the label, and those of the ticks, right of it."""
    return [*_label_lines(axis), *(f"  {word}" * 2 for _, word in axis.ticks)]


def _label_lines(axis: Axis) -> list[str]:
    """A long dotted path is broken after its dots."""
    return axis.label.replace(".", ".\n").split("\n") if len(axis.label) > _MAX_LABEL else [axis.label]


def _spread(label: str, values: Floats, ticks: Floats, words: list[str]) -> Axis:
    """An axis with the lowest value at 0 and the highest at 1."""
    low, width = values.min(), np.ptp(values) or 1.0
    positions = ((ticks - low) / width).tolist()
    return Axis(label, ((values - low) / width).tolist(), list(zip(positions, words, strict=True)))
