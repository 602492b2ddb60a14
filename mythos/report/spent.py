"""What a run has spent, record by record, and what loss it bought: parameters, training FLOPs, seconds.

FLOPs are those of ``account.flops`` at the depth that was run: a token's forward and backward cost
``outer * 3 + core * (T + 2 k)``. The sum of T is recorded exactly; k is recorded with every training record, and
steps between two records are taken to have the mean k of the records so far. Validation, checkpoints and pauses
between starts count neither as FLOPs nor as seconds.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mythos.account.flops import loop_flops, outer_flops
from mythos.account.parameters import count_parameters
from mythos.config import records
from mythos.config.halting import PonderHalting
from mythos.report.read import Run, Series, mean_depth

Floats = npt.NDArray[np.float64]

SAME_PARAMETERS = 0.05
"""Runs whose parameter counts differ by no more than this share are held against each other at equal parameters."""
BUDGETS = (0.25, 0.5, 1.0)
"""Shares of the smallest run's budget at which runs are compared."""


class Spent(NamedTuple):
    """What a run cost up to each of its validations, and the loss there."""

    num_parameters: int
    num_active: int
    """Parameters that a token meets in one pass."""
    depth: int
    """Passes at which the loss was read: the validated depth nearest to the mean of training."""
    steps: npt.NDArray[np.int64]
    tokens: Floats
    flops: Floats
    seconds: Floats
    """Of training; NaN where no speed was recorded."""
    loss: Floats
    """Nats per token, held out."""


def spent(run: Run) -> Spent | None:
    """The costs and losses of a run; None without a validation, or without recorded depths."""
    depth = mean_depth(run)
    if depth is None or records.MEAN_LOOPS not in run.series:
        return None
    validation = run.series[records.validation_loss(depth)]
    steps, tokens = validation.steps, _at(run.series["tokens"], validation.steps)
    return Spent(
        num_parameters=round(count_parameters(run.config.model).total),
        num_active=round(count_parameters(run.config.model, active=True).total),
        depth=depth,
        steps=steps,
        tokens=tokens,
        flops=tokens * _flops_per_token(run, steps),
        seconds=_seconds(run, steps),
        loss=validation.values,
    )


def loss_at(costs: Floats, losses: Floats, budget: float) -> float:
    """The loss at a budget, linear in the logarithm of the cost between two validations; NaN outside of them."""
    known = np.isfinite(costs) & np.isfinite(losses) & (costs > 0)
    costs, losses = costs[known], losses[known]
    if not len(costs) or not costs[0] * (1 - 1e-9) <= budget <= costs[-1] * (1 + 1e-9):
        return float("nan")
    return float(np.interp(np.log(budget), np.log(costs), losses))


class EqualBudget(NamedTuple):
    """Runs at budgets that all of them reach."""

    budgets: list[float]
    losses: dict[str, list[float]]
    """By run: nats per token at each budget; NaN before its first validation."""


def at_equal(runs: dict[str, Spent], cost: str) -> EqualBudget:
    """Losses of runs at shares of the smallest final budget of theirs.

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
    """Mean over the tokens trained on up to each step."""
    model, seq_len = run.config.model, run.config.data.seq_len
    loops = _at(run.series[records.MEAN_LOOPS], steps)
    outer, core = outer_flops(model, seq_len).total, loop_flops(model, seq_len).total
    if isinstance(run.config.halting, PonderHalting) and run.config.halting.train == "gate":
        return outer + core * loops
    graded = run.series[records.NUM_GRAD_LOOPS]
    running = Series(graded.steps, np.cumsum(graded.values) / np.arange(1, len(graded.values) + 1))
    return outer * 3 + core * (loops + 2 * _at(running, steps))


def _seconds(run: Run, steps: npt.NDArray[np.int64]) -> Floats:
    """Seconds of training up to each step: the tokens between records over the speed recorded there."""
    speed = run.series.get(records.TOKENS_PER_SECOND)
    if speed is None:
        return np.full(len(steps), np.nan)
    tokens = _at(run.series["tokens"], speed.steps)
    passed = np.cumsum(np.diff(tokens, prepend=0.0) / speed.values)
    return _at(Series(speed.steps, passed), steps)


def _at(series: Series, steps: npt.NDArray[np.int64]) -> Floats:
    """A series at other steps, linear between its own."""
    return np.interp(steps, series.steps, series.values)


def _last_finite(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")
