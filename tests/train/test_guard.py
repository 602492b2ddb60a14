"""Faults in real runs, and the reaction of the guard."""

from pathlib import Path

import pytest
import torch
from helpers import recorded, saved

from mythos.config import records
from mythos.config.exit_status import Diverged
from mythos.train import module
from mythos.train.build import train
from mythos.train.run_directory import prepare

GUARD = "run.guard={sigmas: 6.0, window: 8, num_history_steps: 4, max_skips: 3, max_rollbacks: 1}"
NOT_FINITE, SPIKE = records.guard("not_finite"), records.guard("loss_spike")


def spoil(monkeypatch: pytest.MonkeyPatch, factors: dict[int, float]) -> None:
    """Multiply the loss of some steps, counted from 1."""
    objective = module.objective

    def spoiled(config, output, batch, plan, terms):
        loss = objective(config, output, batch, plan, terms)
        step = int(batch.sample_ids_B[0]) // config.data.batch_size + 1
        factor = factors.get(step, 1.0)
        return loss._replace(total=loss.total * factor, nll=loss.nll * factor)

    monkeypatch.setattr(module, "objective", spoiled)


def run(config) -> Path:
    train(config, prepare(config))
    return Path(config.run.dir) / config.run.name


@pytest.mark.parametrize(("factor", "name"), [(torch.nan, NOT_FINITE), (torch.inf, NOT_FINITE), (50.0, SPIKE)])
def test_a_bad_step_changes_only_schedule_and_data(configure, monkeypatch, factor: float, name: str) -> None:
    options = (GUARD, "run.num_steps=6", "run.checkpoint.every=1", "run.checkpoint.keep_last=9", "optim=adamw")
    spoil(monkeypatch, {6: factor})
    spoiled = run(configure(*options))
    before, after = saved(spoiled, 5), saved(spoiled, 6)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert recorded(spoiled, name) == {6: 1.0}
    assert recorded(spoiled, "tokens")[6] == 6 * 4 * 32


def test_a_good_run_has_no_skips(configure) -> None:
    run_directory = run(configure(GUARD, "run.num_steps=12"))
    assert not any(recorded(run_directory, records.guard(what)) for what in ("not_finite", "loss_spike", "rollback"))


def test_a_run_that_keeps_failing_rolls_back_and_continues(configure, monkeypatch, capsys) -> None:
    spoil(monkeypatch, dict.fromkeys((5, 6, 7), torch.nan))
    config = configure(GUARD, "run.num_steps=12", "run.checkpoint={every: 2, keep_last: 9}", "optim=adamw")
    run_directory = run(config)
    assert recorded(run_directory, NOT_FINITE) == {5: 1.0, 6: 1.0, 7: 1.0}
    assert recorded(run_directory, records.guard("rollback")) == {7: 1.0}
    assert recorded(run_directory, records.GUARD_FIGURE)[7] == 4.0
    assert recorded(run_directory, records.TRAIN_LOSS)[12] < recorded(run_directory, records.TRAIN_LOSS)[4]
    fourth, eighth = saved(run_directory, 4), saved(run_directory, 8)
    assert eighth["embedding.weight|step"] == fourth["embedding.weight|step"] + 1
    assert "weights and moments are restored from step 4" in capsys.readouterr().err


def test_a_run_that_rollbacks_do_not_help_ends_with_a_diagnosis(configure, monkeypatch) -> None:
    spoil(monkeypatch, dict.fromkeys(range(5, 30), torch.nan))
    config = configure(GUARD, "run.num_steps=20", "run.checkpoint={every: 2, keep_last: 9}")
    with pytest.raises(
        Diverged, match=r"3 steps were skipped from step 8 to step 10 \(not_finite 3\); rolled back at step 7"
    ):
        run(config)


def test_a_run_without_a_checkpoint_cannot_roll_back(configure, monkeypatch) -> None:
    spoil(monkeypatch, dict.fromkeys(range(1, 9), torch.nan))
    with pytest.raises(Diverged, match=r"there is no earlier checkpoint"):
        run(configure(GUARD, "run.checkpoint={every: 2, keep_last: 9}"))


def test_a_resumed_run_restores_the_history_of_the_guard(configure, monkeypatch) -> None:
    spoil(monkeypatch, {7: 50.0})
    whole = run(configure(GUARD, "run.name=whole", "optim=adamw"))
    first = configure(GUARD, "run.name=halves", "optim=adamw", "run.num_steps=4", "schedule.cooldown_fraction=0")
    run(first)
    halves = run(configure(GUARD, "run.name=halves", "optim=adamw", "resume=auto", "schedule.cooldown_fraction=0"))
    assert recorded(whole, SPIKE) == recorded(halves, SPIKE) == {7: 1.0}
