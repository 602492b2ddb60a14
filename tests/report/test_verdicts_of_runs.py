"""Every limit of the verdicts on one run, at both sides, on made-up metrics."""

import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from mythos.config import records
from mythos.config.base import encode, flatten
from mythos.config.load import load
from mythos.config.run import RunConfig
from mythos.report.read import Run, Series
from mythos.report.verdicts import evaluation, gates, loss, state, training
from mythos.report.verdicts.check import Level, Verdict

LAST_STEP, VOCABULARY = 100_000, 2048
MEAN_DEPTH = 8


def made(values: dict[str, list[float]], evaluations: dict[str, Any] | None = None, last_step: int = LAST_STEP) -> Run:
    """A run whose series are evenly spaced and end at the last step."""
    series = {
        name: of_run(each, last_step) for name, each in ({"time": [0.0], "tokens": [1.0]} | values).items() if each
    }
    return Run(config(), series, {}, evaluations or {})


@functools.cache
def config() -> RunConfig:
    return load(["model=debug", f"model.vocab_size={VOCABULARY}", f"depth.mean={MEAN_DEPTH}"])


def of_run(values: list[float], last_step: int) -> Series:
    steps = np.linspace(last_step / len(values), last_step, len(values)).astype(int)
    return Series.of(steps.tolist(), values)


def by_loop(name_of: Callable[[int], str], values: list[float]) -> dict[str, list[float]]:
    return {name_of(loop): [value] for loop, value in enumerate(values)}


def validation(losses: dict[int, float]) -> dict[str, list[float]]:
    return {records.validation_loss(loops): [value] for loops, value in losses.items()}


def swept(first: float, mean: float, last: float) -> dict[str, Any]:
    return {"depth-sweep": {"loss": [first, *[mean] * 7, *[last] * 4]}}


def updates_at_cosine(cosine: float) -> dict[str, list[float]]:
    """Two updates of size 1/2 with this cosine between them: |u - v|^2 / |u|^2 = 2 - 2 cos."""
    ratio = math.sqrt(2 - 2 * cosine)
    changes = by_loop(records.relative_change, [0.5, 0.5]) | by_loop(records.state_norm, [1.0, 1.0])
    return changes | {records.curvature_ratio(1): [ratio]}


def reasoning(at_mean: float, at_most: float) -> dict[str, Any]:
    return {"reasoning": {"mean_depth": 8.0, "solved": {"p-hop": {"1": 0.1, "8": at_mean, "16": at_most}}}}


def task(change: float) -> dict[str, Any]:
    results = [
        {"task": "copa", "exit_rule": None, "mean_loops": loops, "metrics": {"acc": accuracy}}
        for loops, accuracy in ((1, 0.5), (8, 0.5 + change))
    ]
    return {"tasks": {"results": results}}


class Case(NamedTuple):
    """One check: how to make a run in which it has a value, and its limits."""

    verdict: Callable[[Run], Verdict | None]
    run: Callable[[float], Run]
    amber: float | None
    red: float | None
    is_floor: bool = False


CASES = {
    "training loss rises": Case(loss.loss, lambda x: made({records.TRAIN_LOSS: [3.0] * 18 + [3 + x] * 2}), 0.1, 0.5),
    "held-out loss rises": Case(loss.loss, lambda x: made({records.validation_loss(8): [3.0, 3 + x]}), 0.02, 0.2),
    "steps are skipped": Case(
        loss.loss,
        lambda x: made({records.TRAIN_LOSS: [3.0], records.guard("loss_spike"): [1.0] * round(x * LAST_STEP)}),
        0.001,
        0.01,
    ),
    "rollbacks": Case(
        loss.loss,
        lambda x: made({records.TRAIN_LOSS: [3.0], records.guard("rollback"): [1.0] * math.ceil(max(x, 0))}),
        0,
        1,
    ),
    "nothing is learned": Case(
        loss.loss, lambda x: made({records.TRAIN_LOSS: [x * math.log(VOCABULARY)] * 10}), 0.9, 0.98
    ),
    "loops are ignored": Case(loss.by_num_loops, lambda x: made(validation({1: 4.0, 8: 4 - 4 * x})), 0.01, 0, True),
    "loops beyond the mean do harm": Case(
        loss.by_num_loops, lambda x: made(validation({1: 4.0, 8: 3.0, 16: 3 + x})), 0.02, 0.2
    ),
    "a depth sweep's loops are ignored": Case(
        evaluation.depth_sweep, lambda x: made({}, swept(4.0, 4 - 4 * x, 4 - 4 * x)), 0.01, 0, True
    ),
    "a depth sweep rises": Case(evaluation.depth_sweep, lambda x: made({}, swept(4.0, 3.0, 3 + x)), 0.02, 0.2),
    "few problems are solved": Case(evaluation.tasks, lambda x: made({}, reasoning(x, x)), 0.5, 0.05, True),
    "deeper solves fewer": Case(evaluation.tasks, lambda x: made({}, reasoning(0.9, 0.9 + x)), -0.05, -0.2, True),
    "a task becomes worse": Case(evaluation.tasks, lambda x: made({}, task(x)), -0.02, -0.1, True),
    "the change grows": Case(
        state.recurrent, lambda x: made(by_loop(records.relative_change, [0.01 * x**loop for loop in range(8)])), 1, 1.1
    ),
    "the last loop changes much": Case(
        state.recurrent, lambda x: made(by_loop(records.relative_change, [1.0, x])), 0.1, 0.5
    ),
    "the norm grows": Case(state.recurrent, lambda x: made(by_loop(records.state_norm, [1.0, 1.0, x])), 1.5, 4),
    "tokens collapse": Case(
        state.collapse, lambda x: made(by_loop(records.token_correlation, [0.1, x])), 0.9 * 0.95, 0.95
    ),
    "the state oscillates": Case(state.collapse, lambda x: made(updates_at_cosine(x)), 0, -0.5, True),
    "perturbations grow": Case(state.collapse, lambda x: made({records.JACOBIAN_RADIUS: [x]}), 1, 1.5),
    "a gate is stuck": Case(
        gates.gates,
        lambda x: made(
            by_loop(lambda loop: records.gate_mean("loop/keep_gate/keep", loop), [0.1, 0.9])
            | by_loop(lambda loop: records.gate_near_1("loop/keep_gate/keep", loop), [0.0, x])
        ),
        0.5,
        0.9,
    ),
    "all tokens exit at once": Case(state.exits, lambda x: made({records.EXPECTED_LOOPS: [x]}), 1.5, 1.05, True),
    "no token exits early": Case(
        state.exits, lambda x: made({records.EXPECTED_LOOPS: [8 * x], records.NUM_LOOPS: [8.0]}), 0.95, None
    ),
    "a loop is starved": Case(
        state.exits, lambda x: made(by_loop(records.halting_mass, [0.1] * 7 + [x])), 1e-4, None, True
    ),
    "the gradient grows": Case(training.gradients, lambda x: made({records.GRAD_NORM: [1.0] * 19 + [x]}), 3, 10),
    "gradients vanish over the loops": Case(
        training.gradients, lambda x: made(by_loop(records.gradient_norm, [1e-4, 1e-4 * x])), 1e3, 1e5
    ),
    "updates are large": Case(training.gradients, lambda x: made({records.group_update_norm("x"): [x]}), 0.05, 0.2),
    "logits are large": Case(
        training.gradients, lambda x: made({records.LOG_PARTITION: [math.log(VOCABULARY) + x]}), 10, 30
    ),
    "data are waited for": Case(training.speed, lambda x: made({records.DATA_WAIT_SHARE: [x]}), 0.05, 0.2),
    "the speed falls": Case(
        training.speed, lambda x: made({records.LOOPS_PER_SECOND: [1e4] * 15 + [1e4 * x] * 5}), 0.7, 0.4, True
    ),
    "a rank is slow": Case(training.speed, lambda x: made({records.SLOWEST_RANK: [x]}), 1.5, 3),
    "devices are idle": Case(training.speed, lambda x: made({records.MFU: [x]}), 0.1, None, True),
}


def sides() -> Iterator[tuple[str, float, Level]]:
    """A value just within and one just beyond each limit, with the level of that side."""
    for name, case in CASES.items():
        sign = -1 if case.is_floor else 1
        for limit, within, beyond in (
            (case.amber, Level.GREEN, Level.AMBER),
            (case.red, Level.AMBER, Level.RED),
        ):
            if limit is not None:
                margin = 0.02 * abs(limit) or 1e-3
                yield name, limit - sign * margin, within
                yield name, limit + sign * margin, beyond


@pytest.mark.parametrize(("name", "value", "level"), sides())
def test_a_verdict_changes_at_its_limit(name: str, value: float, level: Level) -> None:
    verdict = CASES[name].verdict(CASES[name].run(value))
    assert verdict is not None
    assert verdict.level == level


@functools.cache
def known_keys() -> set[str]:
    """The keys of configurations of several kinds."""
    kinds = (["halting=ponder", "depth.num_grad_loops=32"], ["depth=fixed", "depth.num_loops=4"])
    return {path for each in kinds for path in flatten(encode(load(["model=debug", *each])))}


@pytest.mark.parametrize("name", CASES)
def test_a_verdict_states_its_limits_and_names_a_key_to_change(name: str) -> None:
    case = CASES[name]
    worst = case.red if case.red is not None else case.amber
    verdict = case.verdict(case.run(worst + (-1 if case.is_floor else 1) * (0.5 * abs(worst) or 1)))
    assert verdict is not None
    side = "below" if case.is_floor else "above"
    limit = re.search(rf"\((amber {side} [-\d.,e%]+)?(, )?(red {side} [-\d.,e%]+)?\)", verdict.text)
    assert limit is not None
    assert (limit[1] is None, limit[3] is None) == (case.amber is None, case.red is None)
    keys = re.findall(r"(?<![\w.])[a-z_]+(?:\.[a-z_]+)+", verdict.text)
    assert keys or "--num-loops" in verdict.text
    assert set(keys) <= known_keys(), sorted(set(keys) - known_keys())


def test_values_that_are_not_numbers_are_red() -> None:
    verdict = loss.loss(made({records.TRAIN_LOSS: [3.0, math.nan]}))
    assert verdict is not None
    assert (verdict.level, verdict.text.partition(" (")[0]) == (Level.RED, "The training loss is nan at step 100,000")
    assert training.gradients(made({records.GRAD_NORM: [1.0, math.inf]})).level == Level.RED


def test_ignored_loops_are_no_fault_early_in_a_run() -> None:
    """The limit of the alarm ``ignored_state`` applies from step 1,000 on."""
    early, late = (
        loss.by_num_loops(made(validation({1: 4.0, 8: 4.1}), last_step=last_step)) for last_step in (999, 1000)
    )
    assert early is not None
    assert late is not None
    assert (early.level, late.level) == (Level.AMBER, Level.RED)
    assert early.text.endswith("Train on: before step 1,000 this is no fault.")


def test_limits_of_alarms_are_those_of_the_run() -> None:
    run = made(by_loop(records.token_correlation, [0.6]))
    strict = load(["model=debug", "telemetry.alarms.token_correlation=0.5"])
    assert state.collapse(run).level == Level.GREEN
    assert state.collapse(run._replace(config=strict)).level == Level.RED


def test_a_section_without_metrics_has_no_verdict() -> None:
    empty = made({})
    verdicts = [
        each(empty)
        for each in (loss.loss, loss.by_num_loops, state.recurrent, state.collapse, state.exits, training.gradients)
    ]
    assert [*verdicts, training.speed(empty), evaluation.tasks(empty), evaluation.depth_sweep(empty)] == [None] * 9


def test_a_contracting_state_does_not_oscillate() -> None:
    """Each update is 0.4 times the one before along one line: a curvature ratio of 0.6 / 0.4, and a cosine of 1."""
    change, norm = Series.of([0, 1, 2], [1.0, 0.4, 0.16]), Series.of([0, 1, 2], [1.0, 1.0, 1.0])
    cosines = state.update_cosines(change, norm, Series.of([1, 2], [1.5, 1.5]))
    assert cosines.values == pytest.approx([1.0, 1.0])
    alternating = state.update_cosines(change, norm, Series.of([1, 2], [3.5, 3.5]))
    assert alternating.values == pytest.approx([-1.0, -1.0])
