"""A run that is asked to stop saves, reports it, and resumes bitwise."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import recorded, saved

from mythos.callbacks.base import StepResult
from mythos.callbacks.checkpointing import Checkpointing
from mythos.callbacks.data_position import DataPosition
from mythos.callbacks.stop_vote import StopVote
from mythos.checkpoint.store import checkpoints
from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.exit_status import PREEMPTED
from mythos.config.load import load
from mythos.config.run import RunConfig
from mythos.config.survival import SurvivalSettings
from mythos.parallel import stopping
from mythos.train import run_directory
from mythos.train.run_directory import RunDirectory
from mythos.train.start import start


def do_after(step: int, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when a step has ended, before that step is recorded."""
    advance = DataPosition.on_step_end

    def act(self, trainer, module, result: StepResult) -> None:
        advance(self, trainer, module, result)
        if result.step == step:
            action()

    monkeypatch.setattr(DataPosition, "on_step_end", act)


def steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints(run / "checkpoints")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_next_step_and_it_resumes_bitwise(
    configure, monkeypatch, tmp_path: Path, capsys, number: int
) -> None:
    whole, part = (configure(f"run.name={name}", "run.checkpoint.every=8") for name in ("whole", "part"))
    assert start(whole) == 0
    numbers = (*stopping.STOP_SIGNALS, signal.SIGINT)
    handlers = [signal.getsignal(one) for one in numbers]
    with monkeypatch.context() as patch:
        do_after(4, lambda: os.kill(os.getpid(), number), patch)
        assert start(part) == PREEMPTED
    assert [signal.getsignal(one) for one in numbers] == handlers
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "mythos: SIGTERM, SIGUSR1 or Ctrl-C on 1 of 1 ranks: saved at step 5 of 8 and ended; "
        "the same command with resume=auto resumes it."
    )
    assert steps(tmp_path / "part") == [5]
    assert start(replace(part, resume="auto")) == 0
    for name in (records.TRAIN_LOSS, records.NUM_LOOPS, records.MEAN_LOOPS, records.validation_loss(4)):
        assert recorded(tmp_path / "whole", name) == recorded(tmp_path / "part", name), name
    ours, theirs = saved(tmp_path / "whole", 8), saved(tmp_path / "part", 8)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)


def test_a_second_signal_during_the_save_has_no_effect(configure, monkeypatch, tmp_path: Path) -> None:
    write = Checkpointing._write

    def disturbed(self, *arguments) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write(self, *arguments)

    monkeypatch.setattr(Checkpointing, "_write", disturbed)
    do_after(2, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    mirror = tmp_path / "mirror"
    assert start(configure(f"run.checkpoint.copy_to={mirror}")) == PREEMPTED
    assert steps(tmp_path / "test") == [3]
    assert (mirror / "test" / "step-00000003" / "manifest.json").exists()


def test_a_step_is_saved_once_and_the_last_step_is_no_preemption(configure, monkeypatch, tmp_path: Path) -> None:
    num_saves, save = [], Checkpointing._save
    monkeypatch.setattr(Checkpointing, "_save", lambda self, *rest: (num_saves.append(1), save(self, *rest)))
    do_after(3, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    assert start(configure("run.name=fourth")) == PREEMPTED
    assert (steps(tmp_path / "fourth"), len(num_saves)) == ([4], 1)
    monkeypatch.undo()
    do_after(7, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    assert start(configure("run.name=last")) == 0
    assert steps(tmp_path / "last") == [4, 8]


def test_a_run_that_was_asked_while_it_started_has_nothing_to_save(
    configure, monkeypatch, tmp_path: Path, capsys
) -> None:
    def prepare(config: RunConfig) -> RunDirectory:
        os.kill(os.getpid(), signal.SIGTERM)
        return run_directory.prepare(config)

    monkeypatch.setattr("mythos.train.start.prepare", prepare)
    asked = "mythos: SIGTERM, SIGUSR1 or Ctrl-C on 1 of 1 ranks: ended before step"
    end = "the first of this start, and saved nothing; the same command starts it again."
    assert start(configure()) == PREEMPTED
    assert steps(tmp_path / "test") == []
    assert not recorded(tmp_path / "test", records.TRAIN_LOSS)
    assert capsys.readouterr().err.splitlines()[-1] == f"{asked} 1 of 8, {end}"

    with monkeypatch.context() as patch:
        patch.setattr("mythos.train.start.prepare", run_directory.prepare)
        do_after(4, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        assert start(configure()) == PREEMPTED
    assert start(configure("resume=auto")) == PREEMPTED
    assert steps(tmp_path / "test") == [4, 5]
    assert capsys.readouterr().err.splitlines()[-1] == f"{asked} 6 of 8, {end}"


class Clock(stopping.StopRequest):
    """A request that is never made, in a process of a given age."""

    elapsed_seconds = 0.0


def test_a_time_limit_leaves_time_for_two_steps_and_a_save() -> None:
    """The rest of the step in which the ranks vote, the step after it, and the save: 100 - 20 - 2 * 5 - 10 is 60."""
    clock = Clock()
    vote = StopVote(SurvivalSettings(time_limit_seconds=100.0, time_limit_margin_seconds=20.0), clock)
    vote.longest_step_seconds = 5.0
    vote.add_save(10.0)
    vote.add_save(3.0)
    for elapsed, is_late in ((59.0, 0.0), (61.0, 1.0)):
        clock.elapsed_seconds = elapsed
        assert vote.cast(torch.device("cpu")).tolist() == [0.0, is_late]


def test_a_step_in_which_the_process_was_suspended_is_no_measure_of_the_time_that_a_step_needs() -> None:
    with stopping.stop_request() as request:
        vote = StopVote(SurvivalSettings(time_limit_seconds=10_000.0), request)
        for _ in range(4):
            vote.cast(torch.device("cpu"))
        os.kill(os.getpid(), signal.SIGCONT)
        assert vote.cast_at is not None
        vote.cast_at -= 5000.0
        assert vote.cast(torch.device("cpu")).tolist() == [0.0, 0.0]
        vote.cast_at -= 5.0
        vote.cast(torch.device("cpu"))
    assert 5.0 <= vote.longest_step_seconds < 1000.0


def test_a_run_ends_before_its_time_limit(configure, tmp_path: Path, capsys) -> None:
    limit = ["run.time_limit_seconds=2", "run.time_limit_margin_seconds=0.5", "run.num_steps=100000"]
    assert start(configure(*limit, "run.checkpoint.every=100000", "run.validation.every=100000")) == PREEMPTED
    assert "run.time_limit_seconds=2: saved at step" in capsys.readouterr().err
    assert len(steps(tmp_path / "test")) == 1


def test_a_margin_as_long_as_the_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run: time_limit_margin_seconds is 60 but time_limit_seconds is 50"):
        load(["run.time_limit_seconds=50"])
    with pytest.raises(ConfigError, match=r"run.max_restarts is 1 but cluster.num_nodes is 2"):
        load("optim=adamw parallel=zero1 cluster.num_nodes=2 data.micro_batch_size=8 run.max_restarts=1".split())
