"""Exits: the probability of exiting after each loop, and the expected number of loops."""

from mythos.config import records
from mythos.report import draw
from mythos.report.draw import STEP, go
from mythos.report.read import Run, by_index


def halting_masses(run: Run) -> go.Figure | None:
    """Probability of exiting after each loop as a heatmap over step and loop."""
    return draw.loop_heatmap(run, records.halting_mass, "probability", zmin=0)


def halting_profile(run: Run) -> go.Figure | None:
    """Probability of exiting against the loop, averaged over each quarter of the run."""
    return draw.profile(by_index(run.series, records.halting_mass), "probability", rangemode="tozero")


def expected_loops(run: Run) -> go.Figure | None:
    """Expected number of loops after which tokens exit, beside the number of loops that were run."""
    if records.EXPECTED_LOOPS not in run.series:
        return None
    expected = draw.thinned(run.series[records.EXPECTED_LOOPS])
    traces = [draw.line(expected, "expected loops", draw.color("train"), hovertemplate="%{y:.2f}")]
    if records.NUM_LOOPS in run.series:
        drawn = draw.thinned(run.series[records.NUM_LOOPS])
        traces.append(draw.dots(drawn, "loops run", draw.color("muted")))
    return draw.figure(traces, STEP, {"title": "number of loops", "rangemode": "tozero"})
