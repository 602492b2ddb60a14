"""Which exit statuses are followed by a restart, and how often."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mythos.config.exit_status import DIVERGED, LOST_PEER, PREEMPTED, STALLED
from mythos.data.poison import Step, StepRecord
from mythos.train import restarts
from mythos.train.restarts import run_with_restarts


@pytest.fixture
def supervise(configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Simulate attempts that end with given statuses, some of them after saving a step."""

    def run(attempts: list[tuple[int, int | None]], *options: str, **changes: str) -> tuple[int, list[list[str]]]:
        commands: list[list[str]] = []
        remaining = iter(attempts)

        def launch(cluster, command: list[str], started_at: float) -> int:
            commands.append(command)
            status, step = next(remaining)
            if step is not None:
                (tmp_path / "test" / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
            return status

        monkeypatch.setattr(restarts, "launch", launch)
        config = replace(configure("run.restart_backoff_seconds=0", *options), **changes)
        given = [f"resume={config.resume}", "run.num_steps=8"]
        return run_with_restarts(config, given, ["--config-dir", "conf"]), commands

    return run


@pytest.mark.parametrize("status", [LOST_PEER, STALLED, 137, 139])
def test_transient_failures_are_restarted(supervise: Callable, capsys, status: int) -> None:
    assert supervise([(status, 4), (0, 8)], "run.max_restarts=1") == (
        0,
        [
            ["train", "resume=never", "run.num_steps=8", "--config-dir", "conf"],
            ["train", "run.num_steps=8", "resume=auto", "--config-dir", "conf"],
        ],
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"ended with status {status}" in error
    assert "from step-00000004 (restart 1 of 1 without progress)" in error


@pytest.mark.parametrize("status", [0, 1, 2, DIVERGED, PREEMPTED, 130 - 5])
def test_other_statuses_are_not_restarted(supervise: Callable, status: int) -> None:
    assert supervise([(status, None)], "run.max_restarts=3")[0] == status


def test_an_error_within_a_step_is_restarted(supervise: Callable, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    record = StepRecord(tmp_path / "test")
    record.begin(Step(3, 8, 12))
    status, commands = supervise([(1, None), (1, None), (1, None)], "run.max_restarts=2")
    assert (status, len(commands)) == (1, 3)
    record.end()
    assert len(supervise([(1, None)], "run.max_restarts=2")[1]) == 1


def test_only_restarts_without_progress_count(supervise: Callable) -> None:
    attempts = [(75, None), (75, 2), (75, None), (75, 4), (75, None), (75, None), (0, 8)]
    status, commands = supervise(attempts, "run.max_restarts=2")
    assert (status, len(commands)) == (75, 6), "the fifth and the sixth saved nothing after step 4"


def test_restarts_use_the_named_checkpoint_until_the_run_has_its_own(supervise: Callable) -> None:
    _, commands = supervise([(75, None), (75, 4), (0, 8)], "run.max_restarts=2", resume="elsewhere")
    assert [[word for word in command if word.startswith("resume=")] for command in commands] == [
        ["resume=elsewhere"],
        ["resume=elsewhere"],
        ["resume=auto"],
    ]


def test_pauses_double_up_to_a_bound(supervise: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(restarts, "_is_stopped_within", lambda seconds: pauses.append(seconds))
    attempts: list[tuple[int, None]] = [(75, None)] * 6
    assert supervise(attempts, "run.max_restarts=5", "run.restart_backoff_seconds=50")[0] == 75
    assert pauses == [50.0, 100.0, 200.0, 400.0, 600.0]


def test_a_signal_ends_a_pause(supervise: Callable) -> None:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    options = ("run.max_restarts=1", "run.restart_backoff_seconds=100")
    assert supervise([(75, None)], *options)[0] == PREEMPTED
