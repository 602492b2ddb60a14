"""A window of steps writes a trace of these steps and does not change the run."""

import gzip
import json
import os
import signal
from pathlib import Path

import pytest
from helpers import recorded

from mythos.callbacks.base import StepResult
from mythos.callbacks.data_position import DataPosition
from mythos.config import records
from mythos.train.build import train
from mythos.train.run_directory import prepare


def trace_of(run: Path, first_step: int) -> list[dict]:
    path = run / "profile" / f"step-{first_step:08d}-rank-00000" / "trace.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def num_optimizer_steps(events: list[dict]) -> int:
    return sum(event.get("name", "").startswith("Optimizer.step#") for event in events)


def test_a_planned_window_traces_its_steps_and_does_not_change_the_losses(configure) -> None:
    train(plain := configure("run.name=plain"), prepare(plain))
    train(traced := configure("run.name=traced", "tracking.profile={start: 3, num_steps: 2}"), prepare(traced))
    run = Path(traced.run.dir) / "traced"
    assert recorded(run, records.TRAIN_LOSS) == recorded(run.with_name("plain"), records.TRAIN_LOSS)
    assert num_optimizer_steps(trace_of(run, 3)) == 2
    assert [path.name for path in (run / "profile").iterdir()] == ["step-00000003-rank-00000"]
    assert not (run.with_name("plain") / "profile").exists()
    speeds = recorded(run, records.TOKENS_PER_SECOND)
    assert 3 not in speeds
    assert 4 not in speeds
    assert {2, 5, 6, 7, 8} <= set(speeds)


@pytest.mark.parametrize("way", ["file", "signal"])
def test_a_window_can_be_requested_during_the_run(configure, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    config = configure("tracking.log_every=2", "run.name=asked")
    run, advance = Path(config.run.dir) / "asked", DataPosition.on_step_end

    def ask(self, trainer, module, result: StepResult) -> None:
        advance(self, trainer, module, result)
        if result.step == 3:
            (run / "profile-now").touch() if way == "file" else os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr(DataPosition, "on_step_end", ask)
    before = signal.getsignal(signal.SIGUSR2)
    train(config, prepare(config))
    assert num_optimizer_steps(trace_of(run, 5)) == 3
    assert len(list((run / "profile").iterdir())) == 1
    assert not (run / "profile-now").exists()
    assert signal.getsignal(signal.SIGUSR2) == before


def test_a_window_that_is_open_at_the_end_writes_nothing(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure("tracking.profile={start: 3, num_steps: 4}", "run.name=cut")
    advance = DataPosition.on_step_end

    def fall(self, trainer, module, result: StepResult) -> None:
        advance(self, trainer, module, result)
        if result.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(DataPosition, "on_step_end", fall)
    with pytest.raises(KeyboardInterrupt):
        train(config, prepare(config))
    assert not (Path(config.run.dir) / "cut" / "profile").exists()


def test_the_run_continues_after_a_recorder_fails(configure, monkeypatch, capsys) -> None:
    def fail(self, path: str) -> None:
        raise SystemError("error return without exception set")

    monkeypatch.setattr("torch.profiler.profile.export_chrome_trace", fail)
    config = configure("tracking.profile={start: 3, num_steps: 1}")
    train(config, prepare(config))
    run = Path(config.run.dir) / config.run.name
    assert recorded(run, records.TRAIN_LOSS).keys() == set(range(1, 9))
    assert list((run / "profile").iterdir()) == []
    assert "the profile of step 3 is lost" in capsys.readouterr().err
