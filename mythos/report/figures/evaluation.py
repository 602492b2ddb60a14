"""What ``mythos evaluate`` found, drawn: depth, convergence, exit rules, tasks."""

from collections import defaultdict
from typing import Any

import numpy as np

from mythos.report import draw
from mythos.report.draw import LOSS, go
from mythos.report.evaluations import DEPTH_SWEEP, REASONING, TASKS, by_rule, saturation
from mythos.report.figures.loss import in_symbols
from mythos.report.read import Run, Series

_DEPTH: dict[str, Any] = {"title": "passes T", "type": "log"}


def swept_loss(run: Run) -> go.Figure | None:
    """Held-out loss after every pass with its saturation fit, and that of routing frozen to the first pass."""
    found = run.evaluations.get(DEPTH_SWEEP)
    if found is None:
        return None
    depths = np.arange(1, len(found["loss"]) + 1)
    traces = [draw.curve(_by_loop(found["loss"]), "every token T passes", draw.color("train"))]
    fitted = saturation(found, run.config.depth.mean)
    if fitted is not None:
        between: Any = np.geomspace(1, len(depths), 80)
        quiet = {"hovertemplate": None, "hoverinfo": "skip"}
        curve = Series(between, fitted.at(between))
        traces.append(draw.line(curve, in_symbols(fitted), draw.color("muted"), width=1.5, **quiet))
    if (frozen := found.get("frozen_loss")) is not None:
        traces.append(draw.curve(_by_loop(frozen), "experts of the first pass", draw.category(1)))
    figure = draw.figure(traces, _DEPTH | {"tickvals": draw.spaced(depths.tolist(), 1.3)}, {"title": LOSS})
    return figure.add_vline(x=run.config.depth.mean, line={"width": 1, "dash": "dot"})


def swept_accuracy(run: Run) -> go.Figure | None:
    """Share of tokens predicted as the likeliest one, after every pass."""
    found = run.evaluations.get(DEPTH_SWEEP)
    if found is None:
        return None
    curve = _by_loop(found["accuracy"])
    traces = [draw.curve(curve, "accuracy", draw.color("train"), hovertemplate="%{y:.4f}")]
    return draw.figure(traces, _DEPTH | {"tickvals": draw.spaced(curve.steps.tolist(), 1.3)}, {"title": "accuracy"})


def convergence(run: Run) -> go.Figure | None:
    """Relative change, second difference, distance to the last state after every pass, on a logarithmic axis."""
    found = run.evaluations.get(DEPTH_SWEEP)
    if found is None:
        return None
    names = {
        "relative_change": "relative change",
        "curvature_ratio": "second difference",
        "distance_to_last": "distance to the last state",
    }
    shown = {name: _by_loop(found[key]) for key, name in names.items()}
    traces = [
        draw.curve(series, name, draw.category(index), hovertemplate="%{y:.3g}")
        for index, (name, series) in enumerate(shown.items())
    ]
    yaxis = draw.log_axis("relative size", list(shown.values()))
    return draw.figure(traces, draw.loop_axis(range(1, len(found["loss"]) + 1)) | {"title": "passes T"}, yaxis)


def angles(run: Run) -> go.Figure | None:
    """Angle between the states before and after every pass."""
    found = run.evaluations.get(DEPTH_SWEEP)
    if found is None:
        return None
    traces = [draw.curve(_by_loop(found["angle_degrees"]), "angle", draw.color("train"), hovertemplate="%{y:.3g}°")]
    return draw.figure(
        traces, draw.loop_axis(range(1, len(found["loss"]) + 1)) | {"title": "passes T"}, {"title": "degrees"}
    )


def exit_rules(run: Run) -> go.Figure | None:
    """Loss against mean passes, a line a rule with a point a threshold, beside the loss of equal depth for all."""
    return _rules(run, "loss", {"title": LOSS})


def exit_accuracies(run: Run) -> go.Figure | None:
    """Accuracy against mean passes, likewise."""
    return _rules(run, "accuracy", {"title": "accuracy"})


def exit_sensitivity(run: Run) -> go.Figure | None:
    """Share of tokens whose exit moves when the input is disturbed, against mean passes, a line a rule."""
    found = run.evaluations.get(DEPTH_SWEEP)
    if found is None or not found["rules"]:
        return None
    traces = _rule_lines(found["rules"], "changed_share")
    return draw.figure(
        traces, {"title": "mean passes"}, {"title": "share of tokens", "rangemode": "tozero"}, hovermode="closest"
    )


def solved_by_difficulty(run: Run) -> go.Figure | None:
    """Share of problems solved, over difficulty and depth."""
    found = run.evaluations.get(REASONING)
    if found is None:
        return None
    name, table = next(iter(found["accuracy"].items()))
    depths = list(table)
    difficulties = list(table[depths[0]])
    values = np.array([[table[depth][difficulty] for difficulty in difficulties] for depth in depths])
    return draw.heatmap(
        [f"{difficulty}" for difficulty in difficulties],
        [f"T = {depth}" for depth in depths],
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
    """Accuracy of each task against the depth; a cross for each result under an exit rule."""
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
                hovertemplate="%{x:.2f} passes<br>accuracy %{y:.3f}",
            )
        )
    xaxis = {"title": "mean passes"}
    return draw.figure(traces, xaxis, {"title": "accuracy"}, hovermode="closest", showlegend=True)


def _rules(run: Run, figure: str, yaxis: dict[str, Any]) -> go.Figure | None:
    found = run.evaluations.get(DEPTH_SWEEP)
    if found is None or not found["rules"]:
        return None
    equal = draw.curve(_by_loop(found[figure]), "all tokens alike", draw.color("muted"))
    traces = [equal, *_rule_lines(found["rules"], figure)]
    deepest = max(point["mean_loops"] for point in found["rules"])
    xaxis = {"title": "mean passes", "range": [0.5, deepest + 0.5]}
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
                hovertemplate="%{text}<br>%{x:.2f} passes<br>%{y:.4f}<extra></extra>",
            )
        )
    return traces


def _by_loop(values: list[float]) -> Series:
    """A list by pass as a series, the number of passes in place of steps."""
    return Series(np.arange(1, len(values) + 1), np.array(values))
