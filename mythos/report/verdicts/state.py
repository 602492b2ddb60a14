"""Verdicts on the recurrent state and on the exits: whether the loops converge, and whether the gate is used."""

import numpy as np
import numpy.typing as npt

from mythos.config import records
from mythos.report.read import Run, Series, by_index
from mythos.report.reduce import at_the_end
from mythos.report.verdicts.check import Check, Verdict, judge
from mythos.report.verdicts.series import last, last_step, late_mean

Floats = npt.NDArray[np.float64]

LAST_CHANGE = (0.1, 0.5)
"""Relative change of the state over the last loop: amber, red."""
NORM_GROWTH = (1.5, 4.0)
"""Norm after the last loop over that after the middle loop."""
GROWTH_MARGIN = 1.1
"""Growth of the relative change per loop is red above this many times its amber limit."""
CORRELATION_MARGIN = 0.9
"""Token correlation is amber above this share of its red limit."""
JACOBIAN_GROWTH = (1.0, 1.5)
UPDATE_COSINE = (0.0, -0.5)
"""Smallest cosine between the updates of two successive loops."""
EXIT_SHARE = 0.95
"""Expected number of loops over the loops that were run: amber above."""
FEWEST_LOOPS = (1.5, 1.05)
"""Expected number of loops: amber and red below."""
_CONVERGED = 1e-4
"""Relative change below which its growth is rounding."""


def recurrent(run: Run) -> Verdict | None:
    """Whether the state converges over the loops, from means over the last quarter of the run."""
    change = at_the_end(by_index(run.series, records.relative_change))
    norm = at_the_end(by_index(run.series, records.state_norm))
    return judge((_growing_change(run, change), _last_change(change), _growing_norm(norm)))


def collapse(run: Run) -> Verdict | None:
    """Whether tokens keep different states, the updates keep their direction, and perturbations shrink."""
    return judge((_correlation(run), _update_cosine(run), _jacobian(run)))


def exits(run: Run) -> Verdict | None:
    """Whether tokens exit after different loops, from means over the last quarter of the run."""
    expected = late_mean(run.series.get(records.EXPECTED_LOOPS))
    checks: list[Check | None] = [_starved(run)]
    if expected is not None:
        finding = f"tokens exit after {expected:.2f} loops on average"
        checks.append(Check(finding, expected, *FEWEST_LOOPS, "lower halting.weight", is_floor=True))
        if (drawn := late_mean(run.series.get(records.NUM_LOOPS))) is not None:
            finding = f"this is {100 * expected / drawn:.0f}% of the loops that are run"
            checks.append(Check(finding, expected / drawn, EXIT_SHARE, None, "raise halting.weight", is_share=True))
    return judge(checks)


def _growing_change(run: Run, change: Series) -> Check | None:
    """As the alarm ``growing_change``: the factor per loop from the middle loop to the last."""
    values, limit = change.values, run.config.telemetry.alarms.change_growth
    middle, end = len(values) // 2, len(values) - 1
    if end <= middle or values[middle] <= 0 or values[end] < _CONVERGED:
        return None
    factor = float((values[end] / values[middle]) ** (1 / (end - middle)))
    finding = f"over the second half of the loops each one multiplies the relative change by {factor:.2f}"
    advice = "the state does not converge: lower optim.lr, or set objective.consistency to 0.01"
    return Check(finding, factor, limit, GROWTH_MARGIN * limit, advice)


def _last_change(change: Series) -> Check | None:
    if len(change.values) < 2:
        return None
    finding = f"loop {change.steps[-1]} still changes the state by {100 * change.values[-1]:.2g}%"
    return Check(
        finding, float(change.values[-1]), *LAST_CHANGE, "raise depth.mean, so that the state settles", is_share=True
    )


def _growing_norm(norm: Series) -> Check | None:
    middle = len(norm.values) // 2
    if len(norm.values) < 3 or norm.values[middle] <= 0:
        return None
    factor = float(norm.values[-1] / norm.values[middle])
    finding = f"the norm after loop {norm.steps[-1]} is {factor:.2f} times that after loop {norm.steps[middle]}"
    return Check(finding, factor, *NORM_GROWTH, "the state grows: lower optim.lr, or set model.injection.kind=diagonal")


def _correlation(run: Run) -> Check | None:
    by_loop = at_the_end(by_index(run.series, records.token_correlation))
    if not len(by_loop.values):
        return None
    limit, highest = run.config.telemetry.alarms.token_correlation, float(by_loop.values.max())
    finding = f"the largest token correlation after a loop is {highest:.2f}"
    advice = "the tokens' states become one vector: lower optim.lr or lengthen schedule.num_warmup_steps"
    return Check(finding, highest, CORRELATION_MARGIN * limit, limit, advice)


def _update_cosine(run: Run) -> Check | None:
    cosines = update_cosines(
        at_the_end(by_index(run.series, records.relative_change)),
        at_the_end(by_index(run.series, records.state_norm)),
        at_the_end(by_index(run.series, records.curvature_ratio)),
    )
    if not len(cosines.values):
        return None
    smallest = float(cosines.values.min())
    finding = f"the smallest cosine between the updates of two successive loops is {smallest:.2f}"
    advice = "the state oscillates: lower optim.lr, or set depth.damping below 1"
    return Check(finding, smallest, *UPDATE_COSINE, advice, is_floor=True)


def update_cosines(change: Series, norm: Series, curvature: Series) -> Series:
    """Cosine between the update of each loop and that of the loop before, as a series over the loops.

    With u = h'' - h' and v = h' - h, the curvature ratio is c = |u - v| / |u|, so that the cosine of u and v is
    (|u| / |v|) (1 + (|v| / |u|)^2 - c^2) / 2; the sizes of u and v are the relative changes times the norms. All three
    are means over tokens, so that this is an estimate. Loops whose state no longer changes are left out.
    """
    norms = _by_loop(norm)
    size = {
        loop: relative * norms[loop]
        for loop, relative in _by_loop(change).items()
        if loop in norms and relative >= _CONVERGED
    }
    cosines = {}
    for loop, ratio in _by_loop(curvature).items():
        if loop in size and loop - 1 in size:
            step = size[loop] / size[loop - 1]
            cosines[loop] = float(np.clip(step * (1 + step**-2 - ratio**2) / 2, -1, 1))
    return Series.of(list(cosines), list(cosines.values()))


def _by_loop(series: Series) -> dict[int, float]:
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def _jacobian(run: Run) -> Check | None:
    if records.JACOBIAN_RADIUS not in run.series:
        return None
    growth = last(run.series[records.JACOBIAN_RADIUS])
    finding = f"each loop multiplies a small change of the state by {growth:.2f}"
    return Check(finding, growth, *JACOBIAN_GROWTH, "set objective.jacobian to 0.01, or lower optim.lr")


def _starved(run: Run) -> Check | None:
    """As the alarm ``starved_loop``: the smallest probability of exiting after a loop below the mean depth."""
    mass, limits = at_the_end(by_index(run.series, records.halting_mass)), run.config.telemetry.alarms
    below = mass.values[mass.steps < run.config.mean_loops]
    if not len(below) or last_step(run) < limits.num_warmup_steps:
        return None
    smallest = float(below.min())
    finding = f"the smallest probability of exiting after a loop below the mean depth is {smallest:.2g}"
    advice = "the output of that loop is not trained: raise objective.supervise_loops or halting.weight"
    return Check(finding, smallest, limits.halting_mass, None, advice, is_floor=True)
