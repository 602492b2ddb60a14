"""Routing to the experts: load and balance by loop, and differences between the loops."""

from collections.abc import Callable

import numpy as np

from mythos.config import records
from mythos.report import draw
from mythos.report.draw import go
from mythos.report.figures.state import last_of
from mythos.report.read import Run, Series, by_layer
from mythos.report.reduce import table


def expert_load(run: Run) -> go.Figure | None:
    """Load of each expert in each loop and layer in the last measurement, in percent of the mean."""
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
    """Jaccard overlap of a token's experts in two loops, in the last measurement."""
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
    """Share of tokens with the same experts as in the previous loop, and with none of them, in the last measurement."""
    traces = []
    for label, name_of, name in (
        ("same experts as in the previous loop", records.identical_experts, "train"),
        ("no expert of the previous loop", records.disjoint_experts, "validation"),
    ):
        loops = layer_means(run, name_of)
        if loops:
            traces.append(draw.curve(last_of(loops), label, draw.color(name)))
    yaxis = {"title": "share of tokens", "range": [0, 1]}
    return draw.figure(traces, {"title": "loop t"}, yaxis) if traces else None


def path_diversity(run: Run) -> go.Figure | None:
    """Distinct experts of a token up to a loop, over the experts of one loop, averaged over quarters of the run."""
    return draw.profile(layer_means(run, records.path_diversity), "distinct experts / experts per loop")


def balance(run: Run) -> go.Figure | None:
    """Load violation over all loops and layers, against the step."""
    series = {"violation": run.series[records.LOAD_VIOLATION]} if records.LOAD_VIOLATION in run.series else {}
    return draw.lines(series, {"title": "largest load / mean − 1", "rangemode": "tozero"})


def idle_experts(run: Run) -> go.Figure | None:
    """Steps since the least-loaded expert of a layer had a token, against the step; one line per layer."""
    layers = {
        f"layer {layer}": run.series[name]
        for name in run.series
        if (layer := records.layer_of(name)) is not None and name == records.idle_steps(layer)
    }
    return draw.lines(layers, {"title": "steps", "rangemode": "tozero"})


def _mean_over_layers(run: Run, name_of: Callable[[int, int], str], what: str) -> go.Figure | None:
    return draw.heatmap_of(layer_means(run, name_of), what)


def layer_means(run: Run, name_of: Callable[[int, int], str]) -> dict[int, Series]:
    """The mean over layers of a quantity of each layer and loop, by loop."""
    layers = by_layer(run.series, name_of)
    loops = sorted({loop for series in layers.values() for loop in series})
    return {loop: _mean([series[loop] for series in layers.values() if loop in series]) for loop in loops}


def _mean(rows: list[Series]) -> Series:
    """The mean of several series at every step of any of them."""
    steps, values = table(rows, sum(len(row.steps) for row in rows))
    known = np.isfinite(values)
    mean = np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return Series(steps.astype(np.int64), np.where(known.any(0), mean, np.nan))
