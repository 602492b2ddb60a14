from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config import records
from mythos.report.read import Run, read_run
from mythos.report.verdicts import several
from mythos.report.verdicts.check import Level, Verdict

MakeRun = Callable[..., Path]
FINAL = records.validation_loss(8)


@pytest.fixture
def runs(make_run: MakeRun) -> dict[str, Run]:
    """Five learning rates; the middle one has the lowest loss."""
    result = {}
    for index, lr in enumerate((0.001, 0.002, 0.004, 0.008, 0.016)):
        run = read_run(make_run(f"optim.lr={lr}", num_steps=100, name=f"r{index}"))
        run.series[FINAL].values[-1] = 3 + abs(index - 2)
        result[f"r{index}"] = run
    return result


def test_the_worst_verdict_is_that_of_the_runs_that_have_it(runs: dict[str, Run]) -> None:
    levels = {"r0": Level.AMBER, "r1": Level.RED, "r2": Level.GREEN, "r3": Level.RED, "r4": None}
    by_run = {id(runs[name]): level for name, level in levels.items()}

    def verdict(run: Run) -> Verdict | None:
        level = by_run[id(run)]
        return None if level is None else Verdict(level, "It is so.")

    assert several.worst_of(verdict)(runs) == (Level.RED, "2 of 4 runs are red (r1, r3). r1: It is so.")
    assert several.worst_of(verdict)({"r2": runs["r2"]}) == (Level.GREEN, "1 of 1 runs is green. r2: It is so.")
    assert several.worst_of(verdict)({"r4": runs["r4"]}) is None


@pytest.mark.parametrize(("factor", "level"), [(1.09, Level.GREEN), (1.11, Level.AMBER)])
def test_unequal_budgets_are_amber(runs: dict[str, Run], factor: float, level: Level) -> None:
    for run in runs.values():
        for name in (records.MEAN_LOOPS, records.NUM_GRAD_LOOPS):
            run.series[name] = run.series["tokens"]._replace(values=np.full(len(run.series["tokens"].steps), 8.0))
    assert several.costs(runs).level == Level.GREEN
    runs["r1"].series["tokens"].values[:] *= factor
    verdict = several.costs(runs)
    assert verdict.level == level
    assert f"{factor:.2f} times the training FLOPs of the smallest (amber above 1.1)" in verdict.text


def test_a_best_value_at_the_edge_of_those_tried_is_amber(runs: dict[str, Run]) -> None:
    inside = several.sweep(runs)
    assert inside.level == Level.GREEN
    assert "The lowest loss has optim.lr=0.004, 2 values from the edge of those tried (amber below 1)." in inside.text
    runs["r4"].series[FINAL].values[-1] = 2.0
    verdict = several.sweep(runs)
    assert verdict.level == Level.AMBER
    assert verdict.text.endswith("Try larger values of optim.lr.")


@pytest.mark.parametrize(("num_failed", "level"), [(0, Level.GREEN), (1, Level.AMBER), (3, Level.RED)])
def test_runs_without_a_finite_loss_are_counted(runs: dict[str, Run], num_failed: int, level: Level) -> None:
    for name in ("r0", "r4", "r1")[:num_failed]:
        runs[name].series[FINAL].values[-1] = np.nan
    verdict = several.sweep({name: run for name, run in runs.items() if name != "r3" or num_failed < 3})
    assert verdict.level == level
