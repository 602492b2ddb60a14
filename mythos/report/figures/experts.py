"""Which experts the loops visit, how evenly, and whether the loops differ; and when tokens leave."""

from collections.abc import Callable

import numpy as np

from mythos.config import records
from mythos.report import draw
from mythos.report.draw import STEP, go
from mythos.report.figures.state import last_of
from mythos.report.read import Run, Series, by_index, by_layer
from mythos.report.reduce import table


def expert_load(run: Run) -> go.Figure | None:
    """Load of each expert in each loop and layer as last traced, in percent of the mean."""
    if records.EXPERT_LOAD not in run.arrays:
        return None
    load_LTE = run.arrays[records.EXPERT_LOAD]
    num_layers, num_loops, num_experts = load_LTE.shape
    layers = run.arrays.get(records.EXPERT_LOAD_LAYERS, np.arange(num_layers)).astype(int)
    rows = [f"l{layer} t{loop:02d}" for layer in layers for loop in range(num_loops)]
    yaxis = {"title": "layer, loop", "type": "category", "nticks": 16, "autorange": "reversed"}
    return draw.heatmap(
        list(range(num_experts)),
        rows,
        load_LTE.reshape(len(rows), num_experts),
        {"title": "expert"},
        yaxis,
        "load, % of mean",
        hover_x="expert %{x}",
        hover_y="%{y}",
    )


def expert_overlap(run: Run) -> go.Figure | None:
    """Jaccard overlap of a token's experts in two loops, as last traced."""
    if records.EXPERT_OVERLAP not in run.arrays:
        return None
    overlap_TT = run.arrays[records.EXPERT_OVERLAP]
    loops = list(range(len(overlap_TT)))
    axis = draw.loop_axis(loops) | {"showgrid": False}
    return draw.heatmap(
        loops, loops, overlap_TT, axis, axis | {"autorange": "reversed"}, "overlap", hover_x="loop %{x}", zmin=0, zmax=1
    )


def load_violations(run: Run) -> go.Figure | None:
    """Largest load over mean load, minus one, mean over layers, as a heatmap over step and loop."""
    return _mean_over_layers(run, records.load_violation, "violation")


def router_entropies(run: Run) -> go.Figure | None:
    """Entropy of the router's scores, mean over layers, as a heatmap over step and loop."""
    return _mean_over_layers(run, records.router_entropy, "entropy, nats")


def expert_changes(run: Run) -> go.Figure | None:
    """Share of tokens with the same experts as in the loop before, and with none of them, as last traced."""
    traces = []
    for label, name_of, name in (
        ("the same experts as the loop before", records.identical_experts, "train"),
        ("none of them", records.disjoint_experts, "validation"),
    ):
        loops = _layer_means(run, name_of)
        if loops:
            traces.append(draw.curve(last_of(loops), label, draw.color(name)))
    yaxis = {"title": "share of tokens", "range": [0, 1]}
    return draw.figure(traces, {"title": "loop t"}, yaxis) if traces else None


def path_diversity(run: Run) -> go.Figure | None:
    """Different experts that a token met up to a loop, over those of one loop, averaged over quarters of the run."""
    return draw.profile(_layer_means(run, records.path_diversity), "experts met, in loops' worth")


def balance(run: Run) -> go.Figure | None:
    """Load violation over all loops and layers, against the step."""
    found = {"violation": run.series[records.LOAD_VIOLATION]} if records.LOAD_VIOLATION in run.series else {}
    return draw.lines(found, {"title": "largest load / mean − 1", "rangemode": "tozero"})


def idle_experts(run: Run) -> go.Figure | None:
    """Steps for which some expert of a layer has had no token, against the step; one line a layer."""
    layers = {
        f"layer {layer}": run.series[name]
        for name in run.series
        if (layer := records.layer_of(name)) is not None and name == records.idle_steps(layer)
    }
    return draw.lines(layers, {"title": "steps", "rangemode": "tozero"})


def halting_masses(run: Run) -> go.Figure | None:
    """Probability of leaving after each loop as a heatmap over step and loop."""
    return draw.loop_heatmap(run, records.halting_mass, "probability", zmin=0)


def halting_profile(run: Run) -> go.Figure | None:
    """Probability of leaving against the loop, averaged over each quarter of the run."""
    return draw.profile(by_index(run.series, records.halting_mass), "probability", rangemode="tozero")


def expected_loops(run: Run) -> go.Figure | None:
    """Mean pass after which tokens leave, beside the passes that were run."""
    if records.EXPECTED_LOOPS not in run.series:
        return None
    expected = draw.thinned(run.series[records.EXPECTED_LOOPS])
    traces = [draw.line(expected, "expected passes", draw.color("train"), hovertemplate="%{y:.2f}")]
    if records.NUM_LOOPS in run.series:
        drawn = draw.thinned(run.series[records.NUM_LOOPS])
        traces.append(draw.dots(drawn, "passes run", draw.color("muted")))
    return draw.figure(traces, STEP, {"title": "passes", "rangemode": "tozero"})


def _mean_over_layers(run: Run, name_of: Callable[[int, int], str], what: str) -> go.Figure | None:
    return draw.heatmap_of(_layer_means(run, name_of), what)


def _layer_means(run: Run, name_of: Callable[[int, int], str]) -> dict[int, Series]:
    """By loop, the mean over layers of a quantity of each (layer, loop)."""
    layers = by_layer(run.series, name_of)
    loops = sorted({loop for series in layers.values() for loop in series})
    return {loop: _mean([series[loop] for series in layers.values() if loop in series]) for loop in loops}


def _mean(rows: list[Series]) -> Series:
    """The mean of several series at every step that one of them knows."""
    steps, values = table(rows, sum(len(row.steps) for row in rows))
    known = np.isfinite(values)
    mean = np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return Series(steps.astype(np.int64), np.where(known.any(0), mean, np.nan))
