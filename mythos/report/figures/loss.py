"""Training and validation loss, over the run and over depth, and what went wrong meanwhile."""

import numpy as np

from mythos.config import records
from mythos.report import draw
from mythos.report.draw import LOSS, MAX_NAMES, MAX_POINTS, STEP, go
from mythos.report.events import events
from mythos.report.read import Run, Series, by_index, mean_depth, with_prefix
from mythos.report.reduce import smoothed, thin
from mythos.report.saturation import Saturation, fit

_MAX_EVENTS = 500
"""Markers on the time line; later ones are left out."""


def loss(run: Run) -> go.Figure | None:
    """Training loss, as recorded and smoothed, and validation loss at the mean depth, against the step."""
    train = run.series.get(records.TRAIN_LOSS)
    depth = mean_depth(run)
    traces, shown = [], []
    if train is not None:
        kept, color = thin(train.values, MAX_POINTS), draw.color("train")
        shown.append(train)
        traces.append(draw.line(draw.at(train, kept), "training, each record", color, width=1, opacity=0.35))
        traces.append(draw.line(draw.at(smoothed(train), kept), "training, smoothed", color))
    if depth is not None:
        validation = run.series[records.validation_loss(depth)]
        shown.append(validation)
        traces.append(draw.curve(draw.thinned(validation), f"validation at T = {depth}", draw.color("validation")))
    return draw.figure(traces, STEP, {"title": LOSS, "range": draw.focus(shown)}) if shown else None


def timeline(run: Run) -> go.Figure | None:
    """Alarms, skipped steps and rollbacks against the step, one row a kind."""
    found = events(run)[:_MAX_EVENTS]
    if not found:
        return None
    traces = []
    for kind, color in (("alarm", "validation"), ("guard", "train")):
        chosen = [event for event in found if event.kind == kind]
        if chosen:
            traces.append(
                go.Scatter(
                    x=[event.step for event in chosen],
                    y=[event.name for event in chosen],
                    text=[event.told for event in chosen],
                    mode="markers",
                    marker={"size": 11, "symbol": "diamond" if kind == "alarm" else "x"},
                    name=kind,
                    meta=draw.color(color),
                    hovertemplate="step %{x:,d}<br>%{y}: %{text}<extra></extra>",
                )
            )
    last = max(int(series.steps[-1]) for series in run.series.values())
    margin = last / 50 + 1  # a marker on the border would be cut in half
    xaxis = STEP | {"range": [-margin, last + margin]}
    return draw.figure(traces, xaxis, {"type": "category"}, hovermode="closest", showlegend=len(traces) > 1)


def penalties(run: Run) -> go.Figure | None:
    """Each weighted penalty's share of the loss against the step."""
    return draw.lines(with_prefix(run, records.penalty("")), {"title": "nats per token", "rangemode": "tozero"})


def loss_by_depth(run: Run) -> go.Figure | None:
    """Validation loss at each depth T against the step, one line a depth."""
    depths = by_index(run.series, records.validation_loss)
    if not depths:
        return None
    named = draw.spaced(list(depths), 2) if len(depths) > MAX_NAMES else depths
    traces = [
        draw.curve(draw.thinned(series), f"T = {depth}", draw.shade(index, len(depths)), showlegend=depth in named)
        for index, (depth, series) in enumerate(depths.items())
    ]
    return draw.figure(traces, STEP, {"title": LOSS, "range": draw.focus(list(depths.values()))})


def loss_over_depth(run: Run) -> go.Figure | None:
    """The last validation loss over the depth T, on a logarithmic axis, with the curve of its saturation."""
    curve = last_losses(run)
    if curve is None:
        return None
    hover = "T = %{x}<br>%{y:.4f} nats per token<extra></extra>"
    points = [
        draw.curve(
            draw.at(curve, [index]),
            "",
            draw.shade(index, len(curve.steps)),
            marker={"size": 10},
            hovertemplate=hover,
            showlegend=False,
        )
        for index in range(len(curve.steps))
    ]
    fitted = saturation(run)
    if fitted is None:
        between, name = curve, ""
    else:
        depths = np.geomspace(curve.steps[0], curve.steps[-1], 80)
        between, name = Series(depths, fitted.at(depths)), in_symbols(fitted)
    muted = draw.color("muted")
    quiet = {"hovertemplate": None, "hoverinfo": "skip", "showlegend": bool(name)}
    xaxis = {"title": "loops T", "type": "log", "tickvals": draw.spaced(curve.steps.tolist(), 1.3)}
    traces = [draw.line(between, name, muted, width=1.5, **quiet), *points]
    figure = draw.figure(traces, xaxis, {"title": LOSS}, hovermode="closest")
    return figure.add_vline(x=run.config.depth.mean, line={"width": 1, "dash": "dot"})


def last_losses(run: Run) -> Series | None:
    """The last validation loss by depth, the depths in place of steps; None with fewer than two."""
    depths = by_index(run.series, records.validation_loss)
    if len(depths) < 2:
        return None
    return Series(np.array(list(depths)), np.array([series.values[-1] for series in depths.values()]))


def saturation(run: Run) -> Saturation | None:
    """The saturation fit of the last validation losses, where there is one."""
    curve = last_losses(run)
    return None if curve is None else fit(curve.steps.astype(np.float64), curve.values, run.config.depth.mean)


def in_symbols(fitted: Saturation) -> str:
    """The fitted curve as a formula with its numbers."""
    return (
        f"{fitted.floor:.3f} + {fitted.amplitude:.3f} exp(−{fitted.rate:.2f} T / {fitted.mean_depth:g}), "
        f"error {fitted.error:.1g}"
    )


def depth_drawn(run: Run) -> go.Figure | None:
    """T of each recorded step, its running mean, and the passes that keep gradients."""
    drawn = run.series.get(records.NUM_LOOPS)
    if drawn is None:
        return None
    kept = thin(drawn.values, MAX_POINTS)
    traces = [
        draw.dots(draw.at(drawn, kept), "T of a step", draw.color("train")),
        draw.line(draw.at(smoothed(drawn), kept), "T, smoothed", draw.color("train"), hovertemplate="%{y:.2f}"),
    ]
    if (graded := run.series.get(records.NUM_GRAD_LOOPS)) is not None:
        mean = draw.thinned(smoothed(graded))
        traces.append(draw.line(mean, "with gradients, smoothed", draw.color("validation"), hovertemplate="%{y:.2f}"))
    return draw.figure(traces, STEP, {"title": "passes", "rangemode": "tozero"})


def slice_loss_by_depth(run: Run) -> go.Figure | None:
    """Loss on a few training sequences at several depths, smoothed, against the step."""
    depths = by_index(run.series, records.loss_at)
    if not depths:
        return None
    traces = [
        draw.line(draw.thinned(smoothed(series)), f"T = {depth}", draw.shade(index, len(depths)))
        for index, (depth, series) in enumerate(depths.items())
    ]
    return draw.figure(traces, STEP, {"title": LOSS, "range": draw.focus([smoothed(s) for s in depths.values()])})
