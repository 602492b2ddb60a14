"""Elements of the figures: lines, heatmaps and layouts. The page's script adds the colours."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mythos.config.base import ConfigError
from mythos.config.extras import install_command
from mythos.report.read import Run, Series, by_index
from mythos.report.reduce import quarters, table, thin
from mythos.report.theme import SCHEMES, mix
from mythos.report.units import NATS

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ModuleNotFoundError:
    command = install_command("report")
    raise ConfigError(f"plotly, which draws the report, is not installed; run {command}.") from None

MAX_POINTS = 1000
"""Points in one line: more than a screen can resolve."""
MAX_COLUMNS = 200
"""Columns in a heatmap."""
MAX_NAMES = 7
"""Lines in a legend: as many as there are distinct colours, and no more than a phone's screen has room for."""
_MAX_LOG_TICKS = 8
"""Ticks of a logarithmic colour bar."""
STEP: dict[str, Any] = {"title": "optimiser step", "tickformat": ",d", "hoverformat": ",d"}


def plotly_javascript() -> str:
    """The source of the plotting library that draws the figures in a browser."""
    return get_plotlyjs()


def figure(traces: list[Any], xaxis: dict[str, Any], yaxis: dict[str, Any], **options: Any) -> go.Figure:
    """A figure without a theme, which the page's script adds for the reader's colour scheme."""
    if xaxis == STEP:
        xaxis = STEP | _whole_ticks([trace.x for trace in traces])
    layout = {"template": go.layout.Template(), "xaxis": xaxis, "yaxis": yaxis, "hovermode": "x unified"}
    return go.Figure(traces, layout | options)


def _whole_ticks(shown: list[Any]) -> dict[str, Any]:
    """Ticks at whole numbers over a span so short that plotly would repeat them, rounded; none for a longer one."""
    lows, highs = [min(x) for x in shown if len(x)], [max(x) for x in shown if len(x)]
    if not lows or (span := max(highs) - min(lows)) > 5:
        return {}
    return {"dtick": 1} | ({"range": [lows[0] - 1, lows[0] + 1]} if span == 0 else {})


def line(series: Series, name: str, color: dict[str, str], width: float = 2.25, **options: Any) -> go.Scatter:
    """A line; the page's script reads from ``meta`` which colour it has under the reader's scheme."""
    plain = {"mode": "lines", "line": {"width": width}, "hovertemplate": "%{y:.4f}", "meta": color}
    return go.Scatter(x=series.steps, y=series.values.astype(np.float32), name=name, **(plain | options))


def curve(series: Series, name: str, color: dict[str, str], **options: Any) -> go.Scatter:
    """A line that shows its points, for a series with few of them."""
    return line(series, name, color, **({"mode": "lines+markers", "marker": {"size": 5}} | options))


def dots(series: Series, name: str, color: dict[str, str]) -> go.Scatter:
    """Faint points, for a noisy series."""
    return line(series, name, color, mode="markers", marker={"size": 3.5}, opacity=0.45, hovertemplate="%{y:.3g}")


def loss_title(run: Run) -> str:
    """The title of an axis of losses."""
    return f"loss ({run.loss_unit})"


def with_bits(run: Run, trace: go.Scatter, head: str = "") -> go.Scatter:
    """The trace of a loss in nats, whose hover text states bits per byte too where the run knows them."""
    if run.loss_unit == NATS and run.text is not None and run.text.bytes_per_token is not None:
        trace.customdata = np.asarray(trace.y) * run.text.bits_per_nat
        trace.hovertemplate = head + "%{y:.4f} nats per token, %{customdata:.4f} bits per byte"
    return trace


def lines(named: dict[str, Series], yaxis: dict[str, Any], hover: str = "%{y:.4g}") -> go.Figure | None:
    """One line per series against the step, in distinct colours; None without a series."""
    traces = [
        line(thinned(series), name, category(index), hovertemplate=hover)
        for index, (name, series) in enumerate(named.items())
    ]
    return figure(traces, STEP, yaxis, showlegend=True) if traces else None


def loop_heatmap(
    run: Run, name_of: Callable[[int], str], what: str, is_log: bool = False, **options: Any
) -> go.Figure | None:
    """One quantity over step and loop, with gaps for loops that a step did not run; None without its series."""
    return heatmap_of(by_index(run.series, name_of), what, is_log, **options)


def heatmap_of(loops: dict[int, Series], what: str, is_log: bool = False, **options: Any) -> go.Figure | None:
    """A heatmap over step and loop; with ``is_log``, its colours follow the logarithm."""
    if not loops:
        return None
    steps, values = table(list(loops.values()), MAX_COLUMNS)
    return heatmap(steps, list(loops), values, STEP, loop_axis(loops), what, is_log, "step %{x:,.0f}", **options)


def heatmap(
    x: Any,
    y: Any,
    values: npt.NDArray[np.float64],
    xaxis: dict[str, Any],
    yaxis: dict[str, Any],
    what: str,
    is_log: bool = False,
    hover_x: str = "%{x}",
    hover_y: str = "loop %{y}",
    **options: Any,
) -> go.Figure:
    """A matrix as colours; hovering shows column, row and value."""
    shown, bar, hover_z = values.astype(np.float32), {}, "%{z:.4g}"
    if is_log:
        shown = np.log10(np.where(values > 0, values, np.nan)).astype(np.float32)
        bar, hover_z = _log_ticks(shown), "%{customdata:.3g}"
        options["customdata"] = values.astype(np.float32)
    trace = go.Heatmap(
        x=x,
        y=y,
        z=shown,
        hovertemplate=f"{hover_x}<br>{hover_y}<br>{what} {hover_z}<extra></extra>",
        hoverongaps=False,
        colorbar={"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}, "title": _side_title(what)} | bar,
        **options,
    )
    return figure([trace], xaxis, yaxis | {"showgrid": False}, hovermode="closest")


def _side_title(what: str) -> dict[str, Any]:
    """The title of a colour bar, along its right side; the empty second line keeps it off the tick labels."""
    return {"text": f"{what}<br> ", "side": "right", "font": {"size": 11}}


def profile(loops: dict[int, Series], what: str, **yaxis: Any) -> go.Figure | None:
    """A quantity against the loop, averaged over each quarter of the run as ``quarters`` does; None without values."""
    shown = quarters(loops)
    if not shown.loops:
        return None
    traces = [
        curve(Series(np.array(shown.loops), column), f"around step {step:,.0f}", shade(index, len(shown.steps)))
        for index, (step, column) in enumerate(zip(shown.steps, shown.values.T, strict=True))
    ]
    return figure(traces, loop_axis(shown.loops), {"title": what} | yaxis)


def at(series: Series, indices: Any) -> Series:
    """The series at some of its positions."""
    return Series(series.steps[indices], series.values[indices])


def thinned(series: Series) -> Series:
    """At most ``MAX_POINTS`` of a series, its extremes among them."""
    return at(series, thin(series.values, MAX_POINTS))


def color(name: str) -> dict[str, str]:
    """A named colour under each scheme."""
    return {scheme: getattr(palette, name) for scheme, palette in SCHEMES.items()}


def shade(index: int, count: int) -> dict[str, str]:
    """The colour of line ``index`` of ``count`` on the sequential scale under each scheme."""
    return {scheme: mix(palette.ramp, index / max(count - 1, 1)) for scheme, palette in SCHEMES.items()}


def category(index: int) -> dict[str, str]:
    """The colour of item ``index`` of an unordered set; repeats after the last colour."""
    return {scheme: palette.categories[index % len(palette.categories)] for scheme, palette in SCHEMES.items()}


def loop_axis(loops: Any) -> dict[str, Any]:
    """An axis over loop indices with about eight ticks."""
    indices = list(loops)
    return {"title": "loop t", "tickvals": indices[:: len(indices) // 8 or 1]}


def spaced(loop_counts: list[int], ratio: float) -> list[int]:
    """The first number of loops, and each later one that is at least ``ratio`` times the one kept before it."""
    kept = loop_counts[:1]
    for num_loops in loop_counts[1:]:
        if num_loops >= ratio * kept[-1]:
            kept.append(num_loops)
    return kept


def focus(shown: list[Series]) -> list[float] | None:
    """An axis range that excludes the steep first twentieth of the run and spikes; None lets the plot choose."""
    start = max(series.steps[-1] for series in shown) / 20
    tails = [series.values[(series.steps >= start) & np.isfinite(series.values)] for series in shown]
    low = min((tail.min() for tail in tails if len(tail)), default=0.0)
    high = max((np.quantile(tail, 0.99) for tail in tails if len(tail)), default=0.0)
    margin = 0.08 * (high - low)
    return [float(low - margin), float(high + margin)] if margin > 0 else None


def log_axis(title: str, shown: list[Series]) -> dict[str, Any]:
    """A logarithmic axis with a tick at each power of ten, and at 2 and 5 as well where there are few of them."""
    values = np.concatenate([series.values for series in shown]) if shown else np.ones(1)
    positive = values[np.isfinite(values) & (values > 0)]
    num_decades = np.log10(positive.max() / positive.min()) if len(positive) else 0.0
    return {"title": title, "type": "log", "dtick": "D2" if num_decades < 2 else 1, "tickformat": "~g"}


def share_axis(title: str, shown: list[Series]) -> dict[str, Any]:
    """An axis of shares from 0 to at least 5 percent, so that small shares look small, in percent."""
    highest = max((float(np.nanmax(series.values, initial=0.0)) for series in shown), default=0.0)
    return {"title": title, "range": [0, max(1.05 * highest, 0.05)], "tickformat": ".3~%"}


def count_axis(title: str, shown: list[Series]) -> dict[str, Any]:
    """A logarithmic axis over the steps of series, which may be large, with few ticks that have whole labels."""
    values = np.concatenate([series.steps for series in shown]).astype(np.float64) if shown else np.ones(1)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return {"title": title, "type": "log"}
    ticks = [10**exponent for exponent in _round_exponents(np.log10(values.min()), np.log10(values.max()))]
    low, high = np.log10(min(values.min(), ticks[0])), np.log10(max(values.max(), ticks[-1]))
    margin = 0.04 * (high - low) or 0.1
    axis = {"title": title, "type": "log", "range": [low - margin, high + margin]}
    labelled = {_power(tick): tick for tick in ticks}  # of equal costs, the ticks are equal
    return axis | {"tickvals": list(labelled.values()), "ticktext": list(labelled)}


def _power(number: float) -> str:
    """A number with its power of ten from a million on: 2·10¹²; as it is below."""
    if number < 1e6:
        return f"{number:,.3g}" if number < 1000 else f"{number:,.0f}"
    factor, _, exponent = f"{number:.2e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if float(factor) == 1 else f"{float(factor):g}·10{raised}"


def _log_ticks(exponents: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Ticks of a colour bar over powers of ten, written as the numbers that they stand for."""
    finite = exponents[np.isfinite(exponents)]
    if not len(finite):
        return {}
    ticks = _round_exponents(float(finite.min()), float(finite.max()))
    return {"tickvals": ticks, "ticktext": [f"{10**tick:.3g}" for tick in ticks]}


def _round_exponents(low: float, high: float) -> list[float]:
    """Exponents of few round numbers between two exponents, ascending; at least the two ends."""
    decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for digits in ((1, 2, 3, 5), (1, 2, 5), (1,)):
        ticks = [np.log10(digit) + decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= _MAX_LOG_TICKS:
            break
    if len(ticks) < 2:
        ticks = np.linspace(low, high, 4).tolist()
    return [float(tick) for tick in ticks[:: -(-len(ticks) // _MAX_LOG_TICKS)]]
