"""Verdicts on several runs: the worst of the runs' own, and whether they can be compared."""

import math
from collections.abc import Callable
from typing import Any

from mythos.report.compare import Runs, differences, final_validation, ranked
from mythos.report.read import Run
from mythos.report.spent import spent
from mythos.report.verdicts.check import Check, Level, Verdict, judge

UNEQUAL_FLOPS = 1.1
"""Largest over smallest training FLOPs of the runs: amber above."""
FAILED_SHARE = (0.0, 0.5)
"""Share of the runs without a finite validation loss: amber, red above."""
_MAX_NAMED = 4
"""Runs at the worst level that are named."""


def worst_of(verdict: Callable[[Run], Verdict | None]) -> Callable[[Runs], Verdict | None]:
    """The worst verdict, stated for the run of the lowest loss among those that have it; others are named."""

    def of_runs(runs: Runs) -> Verdict | None:
        by_name = {name: one for name in ranked(runs) if (one := verdict(_in_nats(runs[name]))) is not None}
        if not by_name:
            return None
        level = max(one.level for one in by_name.values())
        named = [name for name, one in by_name.items() if one.level == level]
        head = f"{len(named)} of {len(by_name)} runs {'is' if len(named) == 1 else 'are'} {level.word}"
        if level > Level.GREEN:
            more = f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
            head += f" ({', '.join(named[:_MAX_NAMED])}{more})"
        return Verdict(level, f"{head}. {named[0]}: {by_name[named[0]].text}")

    return of_runs


def _in_nats(run: Run) -> Run:
    """The run in the unit of the limits."""
    return run if run.in_nats is None else run.in_nats


def costs(runs: Runs) -> Verdict | None:
    """Whether the runs had equal budgets."""
    flops = [float(cost.flops[-1]) for run in runs.values() if (cost := spent(run)) is not None and len(cost.flops)]
    if len(flops) < 2 or min(flops) <= 0:
        return None
    factor = max(flops) / min(flops)
    advice = "compare the curves where all runs have points, as mythos evaluate compare does, or equalise run.num_steps"
    finding = f"the largest run spent {factor:.2f} times the training FLOPs of the smallest"
    return judge([Check(finding, factor, UNEQUAL_FLOPS, None, advice)])


def sweep(runs: Runs) -> Verdict | None:
    """Whether all runs have a loss, and whether the best values lie inside the ranges that were tried."""
    num_failed = sum(not math.isfinite(final_validation(run)) for run in runs.values())
    finding = f"{num_failed} of {len(runs)} runs have no finite validation loss"
    advice = "see their states and lower optim.lr, or wait for their first validation (run.validation.every)"
    return judge([Check(finding, num_failed / len(runs), *FAILED_SHARE, advice), *_at_edges(runs)])


def _at_edges(runs: Runs) -> list[Check]:
    """For each number with three or more values, whether the best run has the smallest or the largest of them."""
    names = list(runs)
    best = names.index(ranked(runs)[0])
    if not math.isfinite(final_validation(runs[names[best]])):
        return []
    checks = []
    for path, values in differences(runs).items():
        if not all(_is_number(value) for value in values) or len(tried := sorted(set(values))) < 3:
            continue
        rank = tried.index(values[best])
        distance = min(rank, len(tried) - 1 - rank)
        finding = f"the lowest loss has {path}={values[best]:g}, {distance} values from the edge of those tried"
        side = "smaller" if rank == 0 else "larger"
        checks.append(Check(finding, distance, 1, None, f"try {side} values of {path}", is_floor=True))
    return checks


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
