"""Gates of the loop parts: their means and their saturated shares, by loop."""

from collections.abc import Callable

from mythos.config import records
from mythos.report import draw
from mythos.report.draw import go
from mythos.report.figures.state import last_of
from mythos.report.read import Run, Series, by_index


def gate_means(run: Run) -> go.Figure | None:
    """Mean of each gate against the loop, in the last measurement."""
    return _by_loop({gate: _last(run, gate, records.gate_mean) for gate in gate_names(run)}, "mean gate")


def saturated_gates(run: Run) -> go.Figure | None:
    """Share of each gate's values that are near 0 and near 1 against the loop, in the last measurement."""
    shares = {}
    for gate in gate_names(run):
        shares[f"{gate} near 0"] = _last(run, gate, records.gate_near_0)
        shares[f"{gate} near 1"] = _last(run, gate, records.gate_near_1)
    return _by_loop(shares, "share")


def gate_names(run: Run) -> list[str]:
    """Names of all gates, each with its family."""
    return sorted({gate for name in run.series if (gate := records.gate_of(name)) is not None})


def _last(run: Run, gate: str, name_of: Callable[[str, int], str]) -> Series:
    return last_of(by_index(run.series, lambda loop: name_of(gate, loop)))


def _by_loop(named: dict[str, Series], title: str) -> go.Figure | None:
    if not named:
        return None
    traces = [
        draw.curve(series, name.removeprefix("loop/"), draw.category(index))
        for index, (name, series) in enumerate(named.items())
    ]
    every_loop = sorted({int(loop) for series in named.values() for loop in series.steps})
    return draw.figure(traces, draw.loop_axis(every_loop), {"title": title}, showlegend=True)
