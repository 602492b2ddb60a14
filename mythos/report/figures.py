"""The plots of a run: each is one function from a run to a figure, or to None when its series are absent."""

from typing import Any

import numpy as np

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.report.read import Run, Series, by_index, mean_depth
from mythos.report.reduce import smoothed, table, thin
from mythos.report.theme import SCHEMES, mix

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ModuleNotFoundError:
    raise ConfigError("plotly, which draws the report, is not installed; pip install 'mythos[report]'.") from None

_MAX_POINTS = 1000
"""Points in one line: more than a screen can tell apart."""
_MAX_COLUMNS = 200
"""Columns in a heatmap."""
_MAX_NAMES = 8
"""Lines in a legend; a longer one would push the plot off a phone's screen."""
_LOSS = "loss (nats per token)"
_STEP = {"title": "optimiser step", "tickformat": ",d", "hoverformat": ",d"}


def plotly_javascript() -> str:
    """The source of the plotting library that draws the figures in a browser."""
    return get_plotlyjs()


def loss(run: Run) -> go.Figure | None:
    """Training loss, as recorded and smoothed, and validation loss at the mean depth, against the step."""
    train = run.series.get(records.TRAIN_LOSS)
    depth = mean_depth(run)
    traces, shown = [], []
    if train is not None:
        kept, color = thin(train.values, _MAX_POINTS), _color("train")
        shown.append(train)
        traces.append(_line(_at(train, kept), "training, each record", color, width=1, opacity=0.35))
        traces.append(_line(_at(smoothed(train), kept), "training, smoothed", color))
    if depth is not None:
        validation = run.series[records.validation_loss(depth)]
        shown.append(validation)
        traces.append(_curve(_thinned(validation), f"validation at T = {depth}", _color("validation")))
    return _figure(traces, _STEP, {"title": _LOSS, "range": _focus(shown)}) if shown else None


def loss_by_depth(run: Run) -> go.Figure | None:
    """Validation loss at each depth T against the step, one line a depth."""
    depths = by_index(run.series, records.validation_loss)
    if not depths:
        return None
    named = _spaced(list(depths), 2) if len(depths) > _MAX_NAMES else depths
    traces = [
        _curve(_thinned(series), f"T = {depth}", _shade(index, len(depths)), showlegend=depth in named)
        for index, (depth, series) in enumerate(depths.items())
    ]
    return _figure(traces, _STEP, {"title": _LOSS, "range": _focus(list(depths.values()))})


def loss_over_depth(run: Run) -> go.Figure | None:
    """The last validation loss as a curve over the depth T, on a logarithmic axis."""
    depths = by_index(run.series, records.validation_loss)
    if len(depths) < 2:
        return None
    curve = Series(np.array(list(depths)), np.array([series.values[-1] for series in depths.values()]))
    hover = "T = %{x}<br>%{y:.4f} nats per token<extra></extra>"
    points = [
        _curve(_at(curve, [index]), "", _shade(index, len(depths)), marker={"size": 10}, hovertemplate=hover)
        for index in range(len(depths))
    ]
    line = _line(curve, "", _color("muted"), width=1.5, hovertemplate=None, hoverinfo="skip")
    xaxis = {"title": "loops T", "type": "log", "tickvals": _spaced(list(depths), 1.3)}
    figure = _figure([line, *points], xaxis, {"title": _LOSS}, showlegend=False, hovermode="closest")
    return figure.add_vline(x=run.config.depth.mean, line={"width": 1, "dash": "dot"})


def state_norms(run: Run) -> go.Figure | None:
    """Root mean square of the recurrent state as a heatmap over step and loop."""
    loops = by_index(run.series, records.state_norm)
    if not loops:
        return None
    steps, norms = table(list(loops.values()), _MAX_COLUMNS)
    heatmap = go.Heatmap(
        x=steps,
        y=list(loops),
        z=norms.astype(np.float32),
        hovertemplate="step %{x:,.0f}<br>loop %{y}<br>norm %{z:.4f}<extra></extra>",
        hoverongaps=False,
        autocolorscale=True,
        colorbar={"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}},
    )
    return _figure([heatmap], _STEP, _loop_axis(loops) | {"showgrid": False}, hovermode="closest")


def state_norm_profile(run: Run) -> go.Figure | None:
    """Root mean square of the recurrent state against the loop, averaged over each quarter of the run."""
    loops = by_index(run.series, records.state_norm)
    if not loops:
        return None
    steps, norms = table(list(loops.values()), 4)
    traces = [
        _curve(Series(np.array(list(loops)), column), f"around step {step:,.0f}", _shade(index, len(steps)))
        for index, (step, column) in enumerate(zip(steps, norms.T, strict=True))
    ]
    return _figure(traces, _loop_axis(loops), {"title": "norm"})


def _figure(traces: list[Any], xaxis: dict[str, Any], yaxis: dict[str, Any], **options: Any) -> go.Figure:
    """A figure without a theme, which the page's script adds for the reader's colour scheme."""
    layout = {"template": go.layout.Template(), "xaxis": xaxis, "yaxis": yaxis, "hovermode": "x unified"}
    return go.Figure(traces, layout | options)


def _line(series: Series, name: str, color: dict[str, str], width: float = 2.25, **options: Any) -> go.Scatter:
    """A line; the page's script reads from ``meta`` which colour it has under the reader's scheme."""
    plain = {"mode": "lines", "line": {"width": width}, "hovertemplate": "%{y:.4f}", "meta": color}
    return go.Scatter(x=series.steps, y=series.values.astype(np.float32), name=name, **(plain | options))


def _curve(series: Series, name: str, color: dict[str, str], **options: Any) -> go.Scatter:
    """A line that shows its points, for a series with few of them."""
    return _line(series, name, color, **({"mode": "lines+markers", "marker": {"size": 5}} | options))


def _at(series: Series, indices: Any) -> Series:
    return Series(series.steps[indices], series.values[indices])


def _thinned(series: Series) -> Series:
    return _at(series, thin(series.values, _MAX_POINTS))


def _color(name: str) -> dict[str, str]:
    """A named colour under each scheme."""
    return {scheme: getattr(palette, name) for scheme, palette in SCHEMES.items()}


def _shade(index: int, count: int) -> dict[str, str]:
    """The colour of line ``index`` of ``count`` on the sequential scale under each scheme."""
    return {scheme: mix(palette.ramp, index / max(count - 1, 1)) for scheme, palette in SCHEMES.items()}


def _loop_axis(loops: dict[int, Series]) -> dict[str, Any]:
    return {"title": "loop t", "tickvals": list(loops)[:: len(loops) // 8 or 1]}


def _spaced(depths: list[int], ratio: float) -> list[int]:
    """The first depth and every next one that is at least ``ratio`` times the one kept before it."""
    kept = depths[:1]
    for depth in depths[1:]:
        if depth >= ratio * kept[-1]:
            kept.append(depth)
    return kept


def _focus(shown: list[Series]) -> list[float] | None:
    """A range without the steep first twentieth of the run and without spikes; None lets the plot choose."""
    start = max(series.steps[-1] for series in shown) / 20
    tails = [series.values[(series.steps >= start) & np.isfinite(series.values)] for series in shown]
    low = min((tail.min() for tail in tails if len(tail)), default=0.0)
    high = max((np.quantile(tail, 0.99) for tail in tails if len(tail)), default=0.0)
    margin = 0.08 * (high - low)
    return [float(low - margin), float(high + margin)] if margin > 0 else None
