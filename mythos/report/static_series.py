"""The data of the static figures."""

from typing import Any, NamedTuple

import numpy as np

from mythos.config import records
from mythos.report.evaluations import DEPTH_SWEEP, by_rule, saturation
from mythos.report.read import Run, Series, by_index
from mythos.report.reduce import at_the_end
from mythos.report.saturation import Saturation
from mythos.report.spent import Spent, spent
from mythos.report.units import NATS


class Norms(NamedTuple):
    """The state by loop, averaged over the last quarter of a run's steps; series over the loops."""

    norm: Series
    relative_change: Series
    """Empty if it was not logged."""


class DepthSweep(NamedTuple):
    """A depth sweep; lists begin with the first loop."""

    loss: list[float]
    accuracy: list[float]
    num_loops: list[int]
    """Requested loop counts, which the fit uses."""
    mean_depth: float
    """Mean depth of training."""
    fitted: Saturation | None
    rules: dict[str, list[dict[str, Any]]]
    """Points of each exit rule, in increasing order of the mean number of loops."""
    unit: str = NATS
    """Unit of the losses."""


def read_losses(run: Run) -> Spent | None:
    """Validation losses of a run and their costs; None without a finite loss."""
    result = spent(run)
    return result if result is not None and np.isfinite(result.loss).any() else None


def read_norms(run: Run) -> Norms | None:
    """The state's norm and relative change after each loop; None if no norm was logged."""
    norm = at_the_end(by_index(run.series, records.state_norm))
    change = at_the_end(by_index(run.series, records.relative_change))
    return Norms(norm, change) if np.isfinite(norm.values).any() else None


def read_depth_sweep(run: Run) -> DepthSweep | None:
    """The run's depth sweep with the fit of ``report.saturation``; None without one."""
    sweep = run.evaluations.get(DEPTH_SWEEP)
    if sweep is None:
        return None
    mean = run.config.depth.mean
    fitted = saturation(sweep, mean)
    rules = by_rule(sweep["rules"])
    return DepthSweep(sweep["loss"], sweep["accuracy"], sweep["num_loops"], mean, fitted, rules, run.loss_unit)


def read_exits(run: Run) -> DepthSweep | None:
    """The run's depth sweep if it tried exit rules; None otherwise."""
    sweep = read_depth_sweep(run)
    return sweep if sweep is not None and sweep.rules else None
