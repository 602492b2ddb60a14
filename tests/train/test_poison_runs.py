"""The third attempt skips data on which a step failed twice."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import recorded, saved

from mythos.config import records
from mythos.config.run import RunConfig
from mythos.train import module
from mythos.train.start import start


class PoisonedError(RuntimeError):
    """The failure of a step with a bad sample."""


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sample 21, in step 6, break its step."""
    objective = module.objective

    def spoiled(config: RunConfig, output, batch, plan, terms):
        if 21 in batch.sample_ids_B.tolist():
            raise PoisonedError
        return objective(config, output, batch, plan, terms)

    monkeypatch.setattr(module, "objective", spoiled)


def test_the_third_attempt_trains_as_if_the_batch_did_not_exist(configure, poison, tmp_path: Path, capsys) -> None:
    config = configure("run.name=poisoned", "schedule.cooldown_fraction=0")
    for _ in range(2):
        with pytest.raises(PoisonedError):
            start(config)
        config = replace(config, resume="auto")
    assert start(config) == 0
    message = "guard: poison at step 6: samples 20 to 23, on which the step failed twice, are skipped."
    assert message in capsys.readouterr().err
    run = tmp_path / "poisoned"
    assert recorded(run, records.guard("poison")) == {6: 1.0}
    assert recorded(run, records.GUARD_FIGURE) == {6: 20.0}
    assert start(replace(config, run=replace(config.run, num_steps=10))) == 0, "the checkpoint holds the skipped data"

    assert start(configure("run.name=without", "schedule.cooldown_fraction=0", "data.skipped=[[20,24]]")) == 0
    without = tmp_path / "without"
    losses = recorded(run, records.TRAIN_LOSS)
    assert {step: losses[step] for step in range(1, 9)} == recorded(without, records.TRAIN_LOSS)
    assert recorded(run, "tokens")[8] == recorded(without, "tokens")[8]
    ours, theirs = saved(run, 8), saved(without, 8)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)


def test_a_keyboard_interrupt_is_not_a_failure(configure, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "objective", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
    config = configure()
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            start(config)
        config = replace(config, resume="auto")
    monkeypatch.undo()
    assert start(config) == 0
    assert recorded(tmp_path / "test", records.guard("poison")) == {}
