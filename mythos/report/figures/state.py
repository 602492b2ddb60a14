"""The recurrent state: its norm, its change per loop, the correlation of its tokens."""

from mythos.config import records
from mythos.report import draw
from mythos.report.draw import go
from mythos.report.read import Run, Series, by_index, by_layer, with_prefix


def state_norms(run: Run) -> go.Figure | None:
    """Root mean square of the recurrent state as a heatmap over step and loop."""
    return draw.loop_heatmap(run, records.state_norm, "norm")


def state_norm_profile(run: Run) -> go.Figure | None:
    """Root mean square of the recurrent state against the loop, averaged over each quarter of the run."""
    return draw.profile(by_index(run.series, records.state_norm), "norm")


def relative_changes(run: Run) -> go.Figure | None:
    """|h' - h| / |h'| as a heatmap over step and loop, its colours logarithmic."""
    return draw.loop_heatmap(run, records.relative_change, "relative change", is_log=True)


def relative_change_profile(run: Run) -> go.Figure | None:
    """|h' - h| / |h'| against the loop on a logarithmic axis, averaged over each quarter of the run."""
    loops = by_index(run.series, records.relative_change)
    return draw.profile(loops, "relative change", **draw.log_axis("relative change", list(loops.values())))


def cosines(run: Run) -> go.Figure | None:
    """Cosine of the states before and after each loop as a heatmap, without loop 0, which starts without a state."""
    loops = by_index(run.series, records.cosine)
    return draw.heatmap_of({loop: series for loop, series in loops.items() if loop > 0}, "cosine")


def curvature_ratios(run: Run) -> go.Figure | None:
    """|h'' - 2 h' + h| / |h'' - h'| as a heatmap over step and loop."""
    return draw.loop_heatmap(run, records.curvature_ratio, "curvature ratio", is_log=True)


def token_correlations(run: Run) -> go.Figure | None:
    """Mean cosine between the states of two tokens as a heatmap over step and loop; the colours run from 0 to 1."""
    return draw.loop_heatmap(run, records.token_correlation, "token correlation", zmin=0, zmax=1)


def token_correlation_profile(run: Run) -> go.Figure | None:
    """Mean cosine between the states of two tokens against the loop, averaged over each quarter of the run."""
    return draw.profile(by_index(run.series, records.token_correlation), "token correlation")


def update_norms(run: Run) -> go.Figure | None:
    """|x' - x| / |x| over each core block against the loop, in the last measurement; one line per layer."""
    layers = by_layer(run.series, records.update_norm)
    if not layers:
        return None
    traces = [
        draw.curve(last_of(loops), f"layer {layer}", draw.shade(index, len(layers)))
        for index, (layer, loops) in enumerate(layers.items())
    ]
    every_loop = sorted({loop for loops in layers.values() for loop in loops})
    return draw.figure(traces, draw.loop_axis(every_loop), {"title": "update norm", "rangemode": "tozero"})


def recurrence(run: Run) -> go.Figure | None:
    """Decay and gain of the injection, and the growth of a small perturbation over one loop, against the step."""
    names = {
        "largest decay A": records.DECAY_MAX,
        "mean decay A": records.DECAY_MEAN,
        "gain of e": records.INPUT_GAIN,
        "Jacobian growth": records.JACOBIAN_RADIUS,
    }
    series = {label: run.series[name] for label, name in names.items() if name in run.series}
    return draw.lines(series, {"title": "factor", "rangemode": "tozero"})


def part_figures(run: Run) -> go.Figure | None:
    """Figures of the loop parts, such as the mean and the largest gate of cross-loop attention, against the step."""
    series = with_prefix(run, "loop/")
    figures = {name: each for name, each in series.items() if name.count("/") == 1 and records.index_of(name) is None}
    return draw.lines(figures, {"title": "figure", "rangemode": "tozero"})


def last_of(loops: dict[int, Series]) -> Series:
    """The last value of each loop, as a series over the loops."""
    return Series.of(list(loops), [float(series.values[-1]) for series in loops.values()])
