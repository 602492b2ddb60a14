from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.account.flops import run_flops, training_flops
from mythos.account.parameters import count_parameters
from mythos.config import records
from mythos.report.read import read_run
from mythos.report.spent import Spent, at_equal, at_equal_parameters, loss_at, spent

MakeRun = Callable[..., Path]
LOOPS, GRAD_LOOPS, SPEEDS = (3, 5, 4, 8), (2, 3, 2, 4), (100.0, 200.0, 50.0, 100.0)


def lines() -> list[dict]:
    """Four steps of 1000 tokens, validated after the second and the last."""
    result: list[dict] = [{"schema": records.SCHEMA}]
    for index, (loops, grad_loops, speed) in enumerate(zip(LOOPS, GRAD_LOOPS, SPEEDS, strict=True)):
        line = {"step": index + 1, "time": 1e9 + 1000 * index, "tokens": 1000 * (index + 1), records.TRAIN_LOSS: 3.0}
        line |= {records.NUM_LOOPS: loops, records.NUM_GRAD_LOOPS: grad_loops, records.TOKENS_PER_SECOND: speed}
        line |= {records.MEAN_LOOPS: float(np.mean(LOOPS[: index + 1]))}
        if index in (1, 3):
            line |= {records.validation_loss(8): 4.0 - index}
        result.append(line)
    return result


def test_flops_and_seconds_are_those_of_the_steps_that_ran(make_run: MakeRun) -> None:
    run = read_run(make_run("model=debug", lines=lines()))
    result = spent(run)
    assert result is not None
    model, seq_len = run.config.model, run.config.data.seq_len
    steps = [1000 * training_flops(model, seq_len, *one).total for one in zip(LOOPS, GRAD_LOOPS, strict=True)]
    assert result.flops.tolist() == pytest.approx([sum(steps[:2]), sum(steps)])
    assert result.seconds.tolist() == pytest.approx([10 + 5, 10 + 5 + 20 + 10])
    assert result.loss.tolist() == [3.0, 1.0]
    assert result.tokens.tolist() == [2000, 4000]
    assert (result.num_parameters, result.num_loops) == (count_parameters(model).total, 8)


@pytest.mark.parametrize(
    "options",
    [
        "halting=ponder depth.num_grad_loops=32",
        "halting=gate depth.num_grad_loops=32",
        "halting=act depth.num_grad_loops=32",
        "objective.supervise_loops=0.5 objective.jacobian=0.1",
    ],
)
def test_flops_contain_every_exit_whose_loss_was_read(make_run: MakeRun, options: str) -> None:
    run = read_run(make_run("model=debug", *options.split(), lines=lines()))
    steps = [1000 * run_flops(run.config, *one).total for one in zip(LOOPS, GRAD_LOOPS, strict=True)]
    result = spent(run)
    assert result.flops.tolist() == pytest.approx([sum(steps[:2]), sum(steps)])
    assert result.num_parameters == count_parameters(run.config.model, run.config.halting).total


def test_a_run_without_validation_or_loop_counts_has_no_costs(make_run: MakeRun) -> None:
    without = [{key: value for key, value in line.items() if "val/" not in key} for line in lines()]
    assert spent(read_run(make_run("model=debug", lines=without))) is None
    undated = [{key: value for key, value in line.items() if key != records.MEAN_LOOPS} for line in lines()]
    assert spent(read_run(make_run("model=debug", lines=undated, name="other"))) is None


def costs(num_parameters: int, flops: list[float], loss: list[float], seconds: float = np.nan) -> Spent:
    steps = np.arange(1, len(loss) + 1)
    times = seconds * np.array(flops)
    return Spent(num_parameters, num_parameters, 4, steps, steps * 1.0, np.array(flops), times, np.array(loss))


def test_losses_at_equal_budgets_lie_on_the_curves() -> None:
    assert loss_at(np.array([1.0, 100.0]), np.array([4.0, 2.0]), 10.0) == pytest.approx(3.0)
    assert np.isnan(loss_at(np.array([1.0, 100.0]), np.array([4.0, 2.0]), 200.0))
    assert np.isnan(loss_at(np.array([1.0, 100.0]), np.array([4.0, 2.0]), 0.5))
    runs = {"a": costs(10, [1e3, 1e4, 4e4], [5, 4, 3], 2.0), "b": costs(10, [1e4, 2e4, 1e6], [6, 5, 1], 1.0)}
    result = at_equal(runs, "flops")
    assert result.budgets == pytest.approx([1e4, 2e4, 4e4])
    assert result.losses["a"] == pytest.approx([4, 3.5, 3])
    assert result.losses["b"] == pytest.approx([6, 5, 5 - 4 * np.log(2) / np.log(50)])
    assert at_equal(runs, "seconds").budgets == pytest.approx([2e4, 4e4, 8e4])
    runs["c"] = costs(10, [1e4], [3])
    assert at_equal(runs, "seconds").budgets == []


def test_groups_of_equal_parameters_stay_within_five_per_cent_of_their_first() -> None:
    counts = {"a": 1000, "b": 1049, "c": 1060, "d": 500, "e": 1113}
    groups = at_equal_parameters({name: costs(count, [1.0], [1.0]) for name, count in counts.items()})
    assert groups == [["d"], ["a", "b"], ["c", "e"]]
