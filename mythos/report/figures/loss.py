"""Training and validation loss, over the run and over the number of loops; alarms and guard interventions."""

import numpy as np

from mythos.config import records
from mythos.report import draw
from mythos.report.draw import MAX_NAMES, MAX_POINTS, STEP, go
from mythos.report.events import events
from mythos.report.read import Run, Series, by_index, nearest_num_loops, with_prefix
from mythos.report.reduce import smoothed, thin
from mythos.report.saturation import Saturation, fit

_MAX_EVENTS = 500
"""Markers on the timeline; later events are left out."""


def loss(run: Run) -> go.Figure | None:
    """Training loss, as logged and smoothed, and validation loss near the mean depth, against the step."""
    train = run.series.get(records.TRAIN_LOSS)
    num_loops = nearest_num_loops(run)
    traces, shown = [], []
    if train is not None:
        kept, color = thin(train.values, MAX_POINTS), draw.color("train")
        shown.append(train)
        traces.append(draw.line(draw.at(train, kept), "training, as logged", color, width=1, opacity=0.35))
        traces.append(draw.line(draw.at(smoothed(train), kept), "training, smoothed", color))
    if num_loops is not None:
        validation = run.series[records.validation_loss(num_loops)]
        shown.append(validation)
        curve = draw.curve(draw.thinned(validation), f"validation at T = {num_loops}", draw.color("validation"))
        traces.append(draw.with_bits(run, curve))
    return draw.figure(traces, STEP, {"title": draw.loss_title(run), "range": draw.focus(shown)}) if shown else None


def timeline(run: Run) -> go.Figure | None:
    """Alarms, skipped steps and rollbacks against the step, one row per kind."""
    shown = events(run)[:_MAX_EVENTS]
    if not shown:
        return None
    traces = []
    for kind, color in (("alarm", "validation"), ("guard", "train")):
        of_kind = [event for event in shown if event.kind == kind]
        if of_kind:
            traces.append(
                go.Scatter(
                    x=[event.step for event in of_kind],
                    y=[event.name for event in of_kind],
                    text=[event.detail for event in of_kind],
                    mode="markers",
                    marker={"size": 11, "symbol": "diamond" if kind == "alarm" else "x"},
                    name=kind,
                    meta=draw.color(color),
                    hovertemplate="step %{x:,d}<br>%{y}: %{text}<extra></extra>",
                )
            )
    last = max(int(series.steps[-1]) for series in run.series.values())
    margin = last / 50 + 1  # a marker on the border would be cut off
    xaxis = STEP | {"range": [-margin, last + margin]}
    return draw.figure(traces, xaxis, {"type": "category"}, hovermode="closest", showlegend=len(traces) > 1)


def penalties(run: Run) -> go.Figure | None:
    """Each weighted penalty's share of the loss against the step."""
    return draw.lines(with_prefix(run, records.penalty("")), {"title": "nats per token", "rangemode": "tozero"})


def loss_by_num_loops(run: Run) -> go.Figure | None:
    """Validation loss after T loops against the step, one line per T."""
    losses = by_index(run.series, records.validation_loss)
    if not losses:
        return None
    in_legend = draw.spaced(list(losses), 2) if len(losses) > MAX_NAMES else losses
    traces = [
        draw.with_bits(
            run,
            draw.curve(
                draw.thinned(series),
                f"T = {num_loops}",
                draw.shade(index, len(losses)),
                showlegend=num_loops in in_legend,
            ),
        )
        for index, (num_loops, series) in enumerate(losses.items())
    ]
    return draw.figure(traces, STEP, {"title": draw.loss_title(run), "range": draw.focus(list(losses.values()))})


def loss_over_num_loops(run: Run) -> go.Figure | None:
    """The last validation loss against the number of loops T, on a logarithmic axis, with its saturation fit."""
    curve = last_losses(run)
    if curve is None:
        return None
    hover = f"T = %{{x}}<br>%{{y:.4f}} {run.loss_unit}<extra></extra>"
    points = [
        draw.with_bits(
            run,
            draw.curve(
                draw.at(curve, [index]),
                "",
                draw.shade(index, len(curve.steps)),
                marker={"size": 10},
                hovertemplate=hover,
                showlegend=False,
            ),
            "T = %{x}<br>",
        )
        for index in range(len(curve.steps))
    ]
    fitted = saturation(run)
    if fitted is None:
        between, name = curve, ""
    else:
        num_loops = np.geomspace(curve.steps[0], curve.steps[-1], 80)
        between, name = Series(num_loops, fitted.at(num_loops)), as_formula(fitted)
    muted = draw.color("muted")
    quiet = {"hovertemplate": None, "hoverinfo": "skip", "showlegend": bool(name)}
    xaxis = {"title": "loops T", "type": "log", "tickvals": draw.spaced(curve.steps.tolist(), 1.3)}
    traces = [draw.line(between, name, muted, width=1.5, **quiet), *points]
    figure = draw.figure(traces, xaxis, {"title": draw.loss_title(run)}, hovermode="closest")
    return figure.add_vline(x=run.config.depth.mean, line={"width": 1, "dash": "dot"})


def last_losses(run: Run) -> Series | None:
    """The last validation loss as a series over the number of loops; None with fewer than two."""
    losses = by_index(run.series, records.validation_loss)
    if len(losses) < 2:
        return None
    return Series(np.array(list(losses)), np.array([series.values[-1] for series in losses.values()]))


def saturation(run: Run) -> Saturation | None:
    """The saturation fit of the last validation losses, where there is one."""
    curve = last_losses(run)
    return None if curve is None else fit(curve.steps.astype(np.float64), curve.values, run.config.depth.mean)


def as_formula(fitted: Saturation) -> str:
    """The fitted curve as a formula with its numbers."""
    return (
        f"{fitted.floor:.3f} + {fitted.amplitude:.3f} exp(−{fitted.rate:.2f} T / {fitted.mean_depth:g}), "
        f"error {fitted.error:.1g}"
    )


def loops_drawn(run: Run) -> go.Figure | None:
    """T of each logged step, its running mean, and the number of loops with gradients."""
    drawn = run.series.get(records.NUM_LOOPS)
    if drawn is None:
        return None
    kept = thin(drawn.values, MAX_POINTS)
    traces = [
        draw.dots(draw.at(drawn, kept), "T of a step", draw.color("train")),
        draw.line(draw.at(smoothed(drawn), kept), "T, smoothed", draw.color("train"), hovertemplate="%{y:.2f}"),
    ]
    if (grad_loops := run.series.get(records.NUM_GRAD_LOOPS)) is not None:
        mean = draw.thinned(smoothed(grad_loops))
        traces.append(draw.line(mean, "with gradients, smoothed", draw.color("validation"), hovertemplate="%{y:.2f}"))
    return draw.figure(traces, STEP, {"title": "number of loops", "rangemode": "tozero"})


def slice_loss_by_num_loops(run: Run) -> go.Figure | None:
    """Loss on a few training sequences at several numbers of loops, smoothed, against the step."""
    losses = by_index(run.series, records.loss_at)
    if not losses:
        return None
    traces = [
        draw.line(draw.thinned(smoothed(series)), f"T = {num_loops}", draw.shade(index, len(losses)))
        for index, (num_loops, series) in enumerate(losses.items())
    ]
    return draw.figure(
        traces, STEP, {"title": draw.loss_title(run), "range": draw.focus([smoothed(s) for s in losses.values()])}
    )


def loss_gain(run: Run) -> go.Figure | None:
    """Loss at one loop minus that at the largest T against the step, on a few training sequences."""
    series = {"gain": run.series[records.LOSS_GAIN]} if records.LOSS_GAIN in run.series else {}
    return draw.lines(series, {"title": "nats"})
