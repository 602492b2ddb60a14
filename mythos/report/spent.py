"""The cost of a run up to each validation (tokens, training FLOPs, seconds) and the validation loss there.

FLOPs are those of ``account.flops.run_flops`` at the number of loops that was run, with all exits whose loss was read.
The sum of T is logged exactly; T and k of a step are logged with every line of training metrics, and steps between two
lines are assumed to have the mean k, and the mean number of exits, of the lines so far. Validation, checkpoints and
pauses between starts count neither as FLOPs nor as seconds.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mythos.account.flops import run_flops
from mythos.account.parameters import count_parameters
from mythos.config import records
from mythos.report.read import Run, Series, nearest_num_loops
from mythos.report.units import NATS

Floats = npt.NDArray[np.float64]

SAME_PARAMETERS = 0.05
"""Runs whose parameter counts differ by no more than this share are compared at equal parameters."""
BUDGETS = (0.25, 0.5, 1.0)
"""Shares of the smallest run's budget at which runs are compared."""


class Spent(NamedTuple):
    """The cost of a run up to each of its validations, and the loss there."""

    num_parameters: int
    num_active: int
    """Parameters active for a token in one loop."""
    num_loops: int
    """Number of loops of the validation: the validated one nearest to the mean depth of training."""
    steps: npt.NDArray[np.int64]
    tokens: Floats
    flops: Floats
    seconds: Floats
    """Seconds of training; NaN where no speed was logged."""
    loss: Floats
    """Held-out loss."""
    unit: str = NATS
    """Unit of the loss."""


def spent(run: Run) -> Spent | None:
    """The costs and losses of a run; None without a validation, or without logged numbers of loops."""
    num_loops = nearest_num_loops(run)
    if num_loops is None or records.MEAN_LOOPS not in run.series:
        return None
    validation = run.series[records.validation_loss(num_loops)]
    steps, tokens = validation.steps, _at(run.series["tokens"], validation.steps)
    return Spent(
        num_parameters=round(count_parameters(run.config.model, run.config.halting).total),
        num_active=round(count_parameters(run.config.model, run.config.halting, active=True).total),
        num_loops=num_loops,
        steps=steps,
        tokens=tokens,
        flops=tokens * _flops_per_token(run, steps),
        seconds=_seconds(run, steps),
        loss=validation.values,
        unit=run.loss_unit,
    )


def loss_at(costs: Floats, losses: Floats, budget: float) -> float:
    """The loss at a budget, interpolated linearly in the logarithm of the cost; NaN outside of the validations."""
    known = np.isfinite(costs) & np.isfinite(losses) & (costs > 0)
    costs, losses = costs[known], losses[known]
    if not len(costs) or not costs[0] * (1 - 1e-9) <= budget <= costs[-1] * (1 + 1e-9):
        return float("nan")
    return float(np.interp(np.log(budget), np.log(costs), losses))


class EqualBudget(NamedTuple):
    """Losses of several runs at budgets that all of them reach."""

    budgets: list[float]
    losses: dict[str, list[float]]
    """Loss at each budget, by run; NaN before its first validation."""


def at_equal(runs: dict[str, Spent], cost: str) -> EqualBudget:
    """Losses of the runs at shares of their smallest final budget.

    Args:
        cost: ``flops`` or ``seconds``.
    """
    ends = [_last_finite(getattr(run, cost)) for run in runs.values()]
    if not ends or not np.isfinite(ends).all():
        return EqualBudget([], {name: [] for name in runs})
    budgets = [share * min(ends) for share in BUDGETS]
    losses = {name: [loss_at(getattr(run, cost), run.loss, budget) for budget in budgets] for name, run in runs.items()}
    return EqualBudget(budgets, losses)


def at_equal_parameters(runs: dict[str, Spent]) -> list[list[str]]:
    """Groups of runs of nearly equal parameter counts, smallest first; each within ``SAME_PARAMETERS`` of its first."""
    groups: list[list[str]] = []
    for name in sorted(runs, key=lambda name: runs[name].num_parameters):
        first = runs[groups[-1][0]].num_parameters if groups else None
        if first is not None and runs[name].num_parameters <= first * (1 + SAME_PARAMETERS):
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _flops_per_token(run: Run, steps: npt.NDArray[np.int64]) -> Floats:
    """Training FLOPs per token, averaged over the tokens trained on up to each step."""
    loops_run = run.series[records.NUM_LOOPS]
    exits = np.array([run.config.num_exits(num_loops) for num_loops in loops_run.values])
    loops = _at(run.series[records.MEAN_LOOPS], steps)
    grad_loops = _running_mean(run.series[records.NUM_GRAD_LOOPS], steps)
    means = zip(loops, grad_loops, _running_mean(Series(loops_run.steps, exits), steps), strict=True)
    return np.array([run_flops(run.config, *mean).total for mean in means])


def _running_mean(series: Series, steps: npt.NDArray[np.int64]) -> Floats:
    """Mean of the values logged up to each step."""
    return _at(Series(series.steps, np.cumsum(series.values) / np.arange(1, len(series.values) + 1)), steps)


def _seconds(run: Run, steps: npt.NDArray[np.int64]) -> Floats:
    """Seconds of training up to each step: the tokens between two lines of metrics over the speed logged there."""
    speed = run.series.get(records.TOKENS_PER_SECOND)
    if speed is None:
        return np.full(len(steps), np.nan)
    tokens = _at(run.series["tokens"], speed.steps)
    elapsed = np.cumsum(np.diff(tokens, prepend=0.0) / speed.values)
    return _at(Series(speed.steps, elapsed), steps)


def _at(series: Series, steps: npt.NDArray[np.int64]) -> Floats:
    """A series at other steps, linear between its own."""
    return np.interp(steps, series.steps, series.values)


def _last_finite(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")
