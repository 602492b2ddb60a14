from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config import records
from mythos.report.evaluations import by_rule
from mythos.report.read import Series, read_run
from mythos.report.static_series import read_depth_sweep, read_exits, read_losses, read_norms

MakeRun = Callable[..., Path]


def test_norms_and_changes_are_those_of_the_end_of_the_run(make_run: MakeRun) -> None:
    run = read_run(make_run(num_steps=200, trace_every=20))
    run.series[records.state_norm(0)] = Series.of([100, 160, 200], [1.0, 2.0, 4.0])
    run.series[records.relative_change(0)] = Series.of([100, 160, 200], [1.0, 0.5, np.nan])
    result = read_norms(run)
    assert result is not None
    assert (result.norm.steps[0], result.norm.values[0]) == (0, 3.0)
    assert (result.relative_change.steps[0], result.relative_change.values[0]) == (0, 0.5)


def test_a_depth_sweep_has_its_fit_and_its_rules_in_order(make_run: MakeRun) -> None:
    run = read_run(make_run(is_evaluated=True))
    result = read_depth_sweep(run)
    assert result is not None
    assert result.fitted is not None
    # The sweep's losses are 2.4 + exp(-T / 4), and the mean depth is 8.
    assert result.fitted[:4] == pytest.approx((2.4, 1.0, 2.0, 8.0), rel=1e-4)
    assert result.mean_depth == 8
    assert [point["mean_loops"] for point in result.rules["stable_argmax"]] == [2.5, 3.5, 4.5]
    assert read_exits(run) == result
    run.evaluations["depth-sweep"]["rules"] = []
    assert read_exits(run) is None


def test_points_of_a_rule_are_in_the_order_of_their_mean_loops() -> None:
    points = [{"rule": rule, "mean_loops": loops} for rule, loops in (("b", 3.0), ("a", 1.0), ("b", 2.0))]
    result = {rule: [point["mean_loops"] for point in of_rule] for rule, of_rule in by_rule(points).items()}
    assert list(result.items()) == [("b", [2.0, 3.0]), ("a", [1.0])]


def test_a_run_without_the_data_gives_none(make_run: MakeRun) -> None:
    lines = [{"schema": records.SCHEMA}, {"step": 1, "time": 0.0, "tokens": 10, records.TRAIN_LOSS: 3.0}]
    run = read_run(make_run(lines=lines))
    assert [read(run) for read in (read_losses, read_norms, read_depth_sweep, read_exits)] == [None] * 4
