"""Suggestions of a search: reproducible for a seed, across interruptions, and based on the losses."""

import json
from pathlib import Path

import pytest

from mythos.config import records
from mythos.report.jobs import JobRecord, write_record
from mythos.sweep.plan import SweepPlan, make
from mythos.sweep.search import Search, validation_losses

pytest.importorskip("optuna")


class Queue:
    """A queue that stores the jobs to stop."""

    def __init__(self, *running: str) -> None:
        self.running, self.stopped = set(running), []

    def check(self, jobs) -> None:
        pass

    def stop(self, name: str, reason: str) -> None:
        self.stopped.append((name, reason))


def search_plan(
    small: list[str], tmp_path: Path, name: str, stop: str = "{kind: none}", num_trials: int = 14
) -> SweepPlan:
    ranges = "{optim.lr: {kind: real, low: 1e-4, high: 1e-1, log: true}, depth.mean: {kind: integer, low: 1, high: 4}}"
    search = f"kind: tpe, num_trials: {num_trials}, seed: 5, objective_num_loops: 2, ranges: {ranges}, stop: {stop}"
    options = [option for option in small if not option.startswith("run.name=")]
    plan = make([*options, f"sweep.name={name}", f"sweep.search={{{search}}}"])
    plan.directory.mkdir(exist_ok=True)
    return plan


def record_losses(plan: SweepPlan, name: str, losses: dict[int, float]) -> None:
    lines = [{"schema": records.SCHEMA}]
    lines += [
        {"step": step, "time": 0.0, "tokens": 0, records.validation_loss(2): loss} for step, loss in losses.items()
    ]
    (plan.directory / name).mkdir(exist_ok=True)
    (plan.directory / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def run_trials(plan: SweepPlan, search: Search, number: int) -> list[tuple[str, ...]]:
    """Run trials one after the other; the loss is lowest at a learning rate of 0.01."""
    seen = []
    for _ in range(number):
        job = search.next()
        loss = abs(job.config.optim.lr - 0.01) + 3
        record_losses(plan, job.name, {2: 9.0, 4: loss})
        assert not search.ended(JobRecord(name=job.name, status=0))
        seen.append(job.overrides)
    return seen


def test_a_seed_gives_the_same_trials_also_after_an_interruption(small: list[str], tmp_path: Path) -> None:
    whole = search_plan(small, tmp_path, "whole")
    search = Search(whole)
    expected = run_trials(whole, search, 14)
    assert search.next() is None
    assert len(set(expected)) == 14

    cut = search_plan(small, tmp_path, "cut")
    result = run_trials(cut, Search(cut), 6)
    lost = Search(cut).next()  # suggested, and then the process died
    again = Search(cut)
    queue = Queue()
    again.take_over(queue)
    result += run_trials(cut, again, 8)
    assert result == expected
    assert lost.overrides == expected[6]


def test_a_trial_that_had_ended_when_the_sweep_died_is_not_run_again(small: list[str], tmp_path: Path) -> None:
    plan = search_plan(small, tmp_path, "mine", num_trials=2)
    job = Search(plan).next()
    record_losses(plan, job.name, {4: 3.0})
    write_record(job.directory, JobRecord(name=job.name, status=0))
    search = Search(plan)
    search.take_over(Queue())
    assert search.next().name == "trial-0001"


def test_a_trial_that_is_worse_than_the_median_is_stopped(small: list[str], tmp_path: Path) -> None:
    plan = search_plan(small, tmp_path, "mine", "{kind: median, num_startup_trials: 2}")
    search = Search(plan)
    jobs = [search.next() for _ in range(4)]
    for job, loss in zip(jobs, (3.0, 3.2, 5.0, 3.05), strict=True):
        record_losses(plan, job.name, {2: loss})
        queue = Queue(job.name)
        search.watch(queue)
        worse = loss > 4
        assert queue.stopped == ([(job.name, "early")] if worse else [])
        search.ended(JobRecord(name=job.name, status=77 if worse else 0, stopped="early" if worse else None))


def test_halving_continues_the_best_of_each_factor(small: list[str], tmp_path: Path) -> None:
    plan = search_plan(small, tmp_path, "mine", "{kind: halving, min_steps: 2, factor: 2}")
    search = Search(plan)
    stopped = []
    for loss in (3.0, 4.0, 2.9):
        job = search.next()
        record_losses(plan, job.name, {2: loss})
        queue = Queue(job.name)
        search.watch(queue)
        stopped.append(bool(queue.stopped))
    assert stopped[1:] == [True, False]


def test_an_incomplete_line_is_ignored_and_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    name = records.validation_loss(2)
    path.write_text(
        f'{{"step":2,"{name}":5.0}}\n{{"step":4,"{name}":4.0}}\n{{"step":4,"{name}":4.5}}\n{{"step":6,"{name}":3'
    )
    assert validation_losses(path, 2) == [(2, 5.0), (4, 4.5)]
    assert validation_losses(tmp_path / "none", 2) == []
