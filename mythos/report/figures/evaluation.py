"""Plots of the results of ``mythos evaluate``: depth sweep, convergence, exit rules, tasks."""

from collections import defaultdict
from typing import Any

import numpy as np

from mythos.report import draw
from mythos.report.draw import go
from mythos.report.evaluations import DEPTH_SWEEP, REASONING, TASKS, by_rule, saturation
from mythos.report.figures.loss import as_formula
from mythos.report.read import Run, Series

_NUM_LOOPS: dict[str, Any] = {"title": "loops T", "type": "log"}


def swept_loss(run: Run) -> go.Figure | None:
    """Held-out loss after every loop with its saturation fit, and the loss with routing frozen to the first loop."""
    sweep = run.evaluations.get(DEPTH_SWEEP)
    if sweep is None:
        return None
    loop_counts = np.arange(1, len(sweep["loss"]) + 1)
    traces = [draw.with_bits(run, draw.curve(_by_loop(sweep["loss"]), "T loops, all tokens", draw.color("train")))]
    fitted = saturation(sweep, run.config.depth.mean)
    if fitted is not None:
        between: Any = np.geomspace(1, len(loop_counts), 80)
        quiet = {"hovertemplate": None, "hoverinfo": "skip"}
        curve = Series(between, fitted.at(between))
        traces.append(draw.line(curve, as_formula(fitted), draw.color("muted"), width=1.5, **quiet))
    if (frozen := sweep.get("frozen_loss")) is not None:
        traces.append(draw.curve(_by_loop(frozen), "experts of the first loop", draw.category(1)))
    figure = draw.figure(
        traces, _NUM_LOOPS | {"tickvals": draw.spaced(loop_counts.tolist(), 1.3)}, {"title": draw.loss_title(run)}
    )
    return figure.add_vline(x=run.config.depth.mean, line={"width": 1, "dash": "dot"})


def swept_accuracy(run: Run) -> go.Figure | None:
    """Share of tokens that equal the prediction, after every loop."""
    sweep = run.evaluations.get(DEPTH_SWEEP)
    if sweep is None:
        return None
    curve = _by_loop(sweep["accuracy"])
    traces = [draw.curve(curve, "accuracy", draw.color("train"), hovertemplate="%{y:.4f}")]
    return draw.figure(traces, _NUM_LOOPS | {"tickvals": draw.spaced(curve.steps.tolist(), 1.3)}, {"title": "accuracy"})


def convergence(run: Run) -> go.Figure | None:
    """Relative change, curvature ratio, distance to the last state after every loop, on a logarithmic axis."""
    sweep = run.evaluations.get(DEPTH_SWEEP)
    if sweep is None:
        return None
    names = {
        "relative_change": "relative change",
        "curvature_ratio": "curvature ratio",
        "distance_to_last": "distance to the last state",
    }
    shown = {name: _by_loop(sweep[key]) for key, name in names.items()}
    traces = [
        draw.curve(series, name, draw.category(index), hovertemplate="%{y:.3g}")
        for index, (name, series) in enumerate(shown.items())
    ]
    yaxis = draw.log_axis("relative size", list(shown.values()))
    return draw.figure(traces, draw.loop_axis(range(1, len(sweep["loss"]) + 1)) | {"title": "loops T"}, yaxis)


def angles(run: Run) -> go.Figure | None:
    """Angle between the states before and after every loop."""
    sweep = run.evaluations.get(DEPTH_SWEEP)
    if sweep is None:
        return None
    traces = [draw.curve(_by_loop(sweep["angle_degrees"]), "angle", draw.color("train"), hovertemplate="%{y:.3g}°")]
    return draw.figure(
        traces, draw.loop_axis(range(1, len(sweep["loss"]) + 1)) | {"title": "loops T"}, {"title": "degrees"}
    )


def exit_rules(run: Run) -> go.Figure | None:
    """Loss against the mean number of loops, one line per rule; and with T loops for all tokens."""
    return _rules(run, "loss", {"title": draw.loss_title(run)})


def exit_accuracies(run: Run) -> go.Figure | None:
    """Accuracy against the mean number of loops, one line per rule, and with T loops for all tokens."""
    return _rules(run, "accuracy", {"title": "accuracy"})


def exit_sensitivity(run: Run) -> go.Figure | None:
    """Share of tokens whose exit changes when the input is perturbed, against the mean number of loops, by rule."""
    sweep = run.evaluations.get(DEPTH_SWEEP)
    if sweep is None or not sweep["rules"]:
        return None
    traces = _rule_lines(sweep["rules"], "changed_share")
    yaxis = {"title": "share of tokens", "rangemode": "tozero"}
    return draw.figure(traces, {"title": "mean number of loops"}, yaxis, hovermode="closest")


def solved(run: Run) -> go.Figure | None:
    """Share of all problems solved against the number of loops, one line per data set."""
    study = run.evaluations.get(REASONING)
    if study is None or "solved" not in study:  # studies of earlier versions hold the shares by difficulty alone
        return None
    traces = []
    for index, (name, shares) in enumerate(study["solved"].items()):
        series = Series(np.array([int(count) for count in shares]), np.array(list(shares.values())))
        traces.append(draw.curve(series, name, draw.category(index), hovertemplate="%{y:.3f}"))
    loop_counts = [int(count) for count in next(iter(study["solved"].values()))]
    yaxis = {"title": "solved", "range": [0, 1.02]}
    figure = draw.figure(traces, _NUM_LOOPS | {"tickvals": draw.spaced(loop_counts, 1.3)}, yaxis)
    return figure.add_vline(x=study["mean_depth"], line={"width": 1, "dash": "dot"})


def solved_by_difficulty(run: Run) -> go.Figure | None:
    """Share of problems solved, over difficulty and number of loops."""
    study = run.evaluations.get(REASONING)
    if study is None:
        return None
    name, table = next(iter(study["accuracy"].items()))
    loop_counts = list(table)
    difficulties = list(table[loop_counts[0]])
    values = np.array([[table[num_loops][difficulty] for difficulty in difficulties] for num_loops in loop_counts])
    return draw.heatmap(
        [f"{difficulty}" for difficulty in difficulties],
        [f"T = {num_loops}" for num_loops in loop_counts],
        values,
        {"title": f"difficulty ({name})", "type": "category"},
        {"type": "category"},
        "solved",
        hover_x="difficulty %{x}",
        hover_y="%{y}",
        zmin=0,
        zmax=1,
    )


def task_accuracies(run: Run) -> go.Figure | None:
    """Accuracy of each task against the mean number of loops; a cross for each result under an exit rule."""
    by_task: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in run.evaluations.get(TASKS, {}).get("results", []):
        if "acc" in result["metrics"]:
            by_task[result["task"]].append(result)
    if not by_task:
        return None
    traces = []
    for index, (task, results) in enumerate(sorted(by_task.items())):
        results.sort(key=lambda result: result["mean_loops"])
        traces.append(
            go.Scatter(
                x=[result["mean_loops"] for result in results],
                y=[result["metrics"]["acc"] for result in results],
                mode="lines+markers",
                marker={"size": 8, "symbol": ["x" if result["exit_rule"] else "circle" for result in results]},
                name=task,
                meta=draw.category(index),
                hovertemplate="%{x:.2f} loops<br>accuracy %{y:.3f}",
            )
        )
    xaxis = {"title": "mean number of loops"}
    return draw.figure(traces, xaxis, {"title": "accuracy"}, hovermode="closest", showlegend=True)


def _rules(run: Run, figure: str, yaxis: dict[str, Any]) -> go.Figure | None:
    sweep = run.evaluations.get(DEPTH_SWEEP)
    if sweep is None or not sweep["rules"]:
        return None
    equal = draw.curve(_by_loop(sweep[figure]), "T loops, all tokens", draw.color("muted"))
    traces = [equal, *_rule_lines(sweep["rules"], figure)]
    most_loops = max(point["mean_loops"] for point in sweep["rules"])
    xaxis = {"title": "mean number of loops", "range": [0.5, most_loops + 0.5]}
    return draw.figure(traces, xaxis, yaxis, hovermode="closest")


def _rule_lines(points: list[dict[str, Any]], figure: str) -> list[Any]:
    traces = []
    for index, (rule, of_rule) in enumerate(by_rule(points).items()):
        traces.append(
            go.Scatter(
                x=[point["mean_loops"] for point in of_rule],
                y=[point[figure] for point in of_rule],
                text=[f"{rule.replace('_', ' ')}, threshold {point['threshold']:g}" for point in of_rule],
                mode="lines+markers",
                marker={"size": 7},
                name=rule.replace("_", " "),
                meta=draw.category(index),
                hovertemplate="%{text}<br>%{x:.2f} loops<br>%{y:.4f}<extra></extra>",
            )
        )
    return traces


def _by_loop(values: list[float]) -> Series:
    """A list with one value per loop as a series over the number of loops."""
    return Series(np.arange(1, len(values) + 1), np.array(values))
