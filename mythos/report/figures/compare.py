"""Plots of several runs, with one colour per run."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mythos.config import records
from mythos.report import draw
from mythos.report.compare import Runs, ranked
from mythos.report.draw import MAX_NAMES, go
from mythos.report.figures.loss import last_losses
from mythos.report.read import Run, Series, by_index, nearest_num_loops
from mythos.report.reduce import at_the_end, smoothed
from mythos.report.spent import spent


def losses(runs: Runs) -> go.Figure | None:
    """Smoothed training loss of each run."""
    yaxis = {"title": _loss_title(runs)}
    return _over_the_run(runs, lambda run: _smooth(run, records.TRAIN_LOSS), yaxis, is_focused=True)


def validations(runs: Runs) -> go.Figure | None:
    """Validation loss of each run at the number of loops nearest to its own mean depth."""
    return _over_the_run(runs, _validation, {"title": _loss_title(runs)}, is_focused=True)


def losses_over_num_loops(runs: Runs) -> go.Figure | None:
    """Last validation loss of each run against the number of loops T, on a logarithmic axis."""
    curve_of = {name: curve for name, run in runs.items() if (curve := last_losses(run)) is not None}
    loop_counts = sorted({int(num_loops) for curve in curve_of.values() for num_loops in curve.steps})
    xaxis = {"title": "loops T", "type": "log", "tickvals": draw.spaced(loop_counts, 1.3)}
    return _curves(runs, curve_of, xaxis, {"title": _loss_title(runs)})


def losses_over_flops(runs: Runs) -> go.Figure | None:
    """Validation loss of each run against its training FLOPs up to then, on a logarithmic axis."""
    return _over_cost(runs, "flops", "training FLOPs")


def losses_over_seconds(runs: Runs) -> go.Figure | None:
    """Validation loss of each run against its seconds of training up to then, on a logarithmic axis."""
    return _over_cost(runs, "seconds", "seconds of training")


def gradient_norms(runs: Runs) -> go.Figure | None:
    """Smoothed global gradient norm of each run, on a logarithmic axis."""
    shown = [run.series[records.GRAD_NORM] for run in runs.values() if records.GRAD_NORM in run.series]
    yaxis = draw.log_axis("gradient norm", shown)
    return _over_the_run(runs, lambda run: _smooth(run, records.GRAD_NORM), yaxis)


def speeds(runs: Runs) -> go.Figure | None:
    """Smoothed tokens per second of each run."""
    yaxis = {"title": "tokens per second", "rangemode": "tozero", "tickformat": "~s"}
    return _over_the_run(runs, lambda run: _smooth(run, records.TOKENS_PER_SECOND), yaxis)


def state_norms(runs: Runs) -> go.Figure | None:
    """Root mean square of the state against the loop, over the last quarter of each run."""
    return _over_loops(runs, records.state_norm, {"title": "norm"})


def relative_changes(runs: Runs) -> go.Figure | None:
    """|h' - h| / |h'| against the loop on a logarithmic axis, over the last quarter of each run."""
    shown = [series for run in runs.values() for series in by_index(run.series, records.relative_change).values()]
    return _over_loops(runs, records.relative_change, draw.log_axis("relative change", shown))


def token_correlations(runs: Runs) -> go.Figure | None:
    """Mean cosine between tokens against the loop, over the last quarter of each run."""
    return _over_loops(runs, records.token_correlation, {"title": "token correlation"})


def _loss_title(runs: Runs) -> str:
    """All runs have losses of one unit; see ``report.comparable``."""
    return draw.loss_title(next(iter(runs.values())))


def _over_cost(runs: Runs, cost: str, title: str) -> go.Figure | None:
    series_of = {}
    for name, run in runs.items():
        if (cost_of_run := spent(run)) is not None and np.isfinite(getattr(cost_of_run, cost)).any():
            series_of[name] = Series(getattr(cost_of_run, cost), cost_of_run.loss)
    xaxis = draw.count_axis(title, list(series_of.values())) | {"hoverformat": ".3g"}
    return _curves(runs, series_of, xaxis, {"title": _loss_title(runs)})


def _over_the_run(
    runs: Runs, read: Callable[[Run], Series | None], yaxis: dict[str, Any], is_focused: bool = False
) -> go.Figure | None:
    """One line per run against the step, or against tokens if the runs' steps have different numbers of them."""
    series_of = {name: series for name, run in runs.items() if (series := read(run)) is not None}
    if not series_of:
        return None
    if is_focused:
        yaxis = yaxis | {"range": draw.focus(list(series_of.values()))}
    xaxis: dict[str, Any] = draw.STEP
    if len({tokens_per_step(run) for run in runs.values()}) > 1:
        xaxis = {"title": "tokens", "tickformat": "~s", "hoverformat": ".4s"}
        series_of = {name: _by_tokens(runs[name], series) for name, series in series_of.items()}
    return _curves(runs, series_of, xaxis, yaxis)


def _over_loops(runs: Runs, name_of: Callable[[int], str], yaxis: dict[str, Any]) -> go.Figure | None:
    series_of = {}
    for name, run in runs.items():
        if loops := by_index(run.series, name_of):
            series_of[name] = at_the_end(loops)
    every_loop = sorted({int(loop) for series in series_of.values() for loop in series.steps})
    return _curves(runs, series_of, draw.loop_axis(every_loop), yaxis)


def _curves(runs: Runs, series_of: dict[str, Series], xaxis: dict[str, Any], yaxis: dict[str, Any]) -> go.Figure | None:
    """Lines in the colours of their runs, which are the same in every plot; runs without a value are left out."""
    series_of = {name: series for name, series in series_of.items() if np.isfinite(series.values).any()}
    if not series_of:
        return None
    color, is_few = colors(runs), len(runs) <= MAX_NAMES
    traces = []
    for name, series in series_of.items():
        kind = draw.curve if len(series.steps) <= 60 else draw.line
        traces.append(kind(draw.thinned(series), name, color[name], width=2))
    # A hover box that names every run would cover the plot.
    return draw.figure(traces, xaxis, yaxis, showlegend=is_few, hovermode="x unified" if is_few else "closest")


def colors(runs: Runs) -> dict[str, dict[str, str]]:
    """The colour of each run: distinct colours for few runs; for many a scale, strongest for the lowest loss."""
    if len(runs) <= MAX_NAMES:
        return {name: draw.category(index) for index, name in enumerate(runs)}
    worst_first = ranked(runs)[::-1]
    return {name: draw.shade(index, len(runs)) for index, name in enumerate(worst_first)}


def tokens_per_step(run: Run) -> int:
    """Tokens of one optimiser step."""
    tokens = run.series["tokens"]
    return round(tokens.values[-1] / tokens.steps[-1])


def _by_tokens(run: Run, series: Series) -> Series:
    tokens = run.series["tokens"]
    return Series(np.interp(series.steps, tokens.steps, tokens.values).astype(np.int64), series.values)


def _smooth(run: Run, name: str) -> Series | None:
    return smoothed(run.series[name]) if name in run.series else None


def _validation(run: Run) -> Series | None:
    num_loops = nearest_num_loops(run)
    return None if num_loops is None else run.series[records.validation_loss(num_loops)]
