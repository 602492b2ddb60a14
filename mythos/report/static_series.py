"""What static figures show of a run, as numbers."""

from typing import Any, NamedTuple

import numpy as np

from mythos.config import records
from mythos.report.evaluations import DEPTH_SWEEP, by_rule, saturation
from mythos.report.read import Run, Series, by_index
from mythos.report.reduce import at_the_end
from mythos.report.saturation import Saturation
from mythos.report.spent import Spent, spent


class Norms(NamedTuple):
    """The state by loop, averaged over the last quarter of a run's records; loops in place of steps."""

    norm: Series
    relative_change: Series
    """Empty where it was not recorded."""


class Sweep(NamedTuple):
    """A depth sweep; lists begin with the first pass."""

    loss: list[float]
    """Nats per token."""
    accuracy: list[float]
    depths: list[int]
    """Those asked for, which the fit reads."""
    mean_depth: float
    """Of training."""
    fitted: Saturation | None
    rules: dict[str, list[dict[str, Any]]]
    """Points of each exit rule, the fewest mean passes first."""


def read_losses(run: Run) -> Spent | None:
    """Validation losses of a run and what it had spent for each; None without a finite one."""
    found = spent(run)
    return found if found is not None and np.isfinite(found.loss).any() else None


def read_norms(run: Run) -> Norms | None:
    """The state's norm and relative change after each loop; None where no norm was traced."""
    norm = at_the_end(by_index(run.series, records.state_norm))
    change = at_the_end(by_index(run.series, records.relative_change))
    return Norms(norm, change) if np.isfinite(norm.values).any() else None


def read_sweep(run: Run) -> Sweep | None:
    """The run's depth sweep with the fit of ``report.saturation``; None without one."""
    found = run.evaluations.get(DEPTH_SWEEP)
    if found is None:
        return None
    mean = run.config.depth.mean
    fitted = saturation(found, mean)
    return Sweep(found["loss"], found["accuracy"], found["depths"], mean, fitted, by_rule(found["rules"]))


def read_exits(run: Run) -> Sweep | None:
    """The run's depth sweep if it tried exit rules; None otherwise."""
    found = read_sweep(run)
    return found if found is not None and found.rules else None
