"""The options of saving, and the checkpoints that they keep."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import recorded, saved

from mythos.checkpoint import mirror
from mythos.checkpoint.store import checkpoints
from mythos.config import records
from mythos.train.build import train
from mythos.train.run_directory import prepare

FOUR_SAVES = "run.checkpoint={every: 2, keep_last: 9}"


def run(config) -> Path:
    train(config, prepare(config))
    return Path(config.run.dir) / config.run.name


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints(folder)]


def test_a_run_that_waits_for_its_saves_saves_the_same(configure) -> None:
    background = run(configure(FOUR_SAVES, "run.name=background"))
    waiting = run(configure(FOUR_SAVES, "run.name=waiting", "run.checkpoint.asynchronous=false"))
    for step in (2, 4, 6, 8):
        ours, theirs = saved(background, step), saved(waiting, step)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_configured_checkpoints_are_kept(configure) -> None:
    options = "run.checkpoint={every: 1, keep_last: 1, keep_every: 3, keep_best: 1}"
    directory = run(configure(options, "run.validation.every=1", "optim.lr=1e-2"))
    losses = recorded(directory, records.validation_loss(2))
    best = min(losses, key=lambda step: losses[step])
    assert steps(directory / "checkpoints") == sorted({3, 6, 8, best})
    assert (directory / "checkpoints" / "latest").read_text() == "step-00000008\n"


def test_a_run_whose_disk_is_lost_resumes_from_its_mirror(configure, tmp_path: Path) -> None:
    copies = f"run.checkpoint.copy_to={tmp_path / 'mirror'}"
    first = configure(FOUR_SAVES, copies, "run.name=lost", "run.num_steps=4", "schedule.cooldown_fraction=0")
    shutil.rmtree(run(first))
    config = configure(FOUR_SAVES, copies, "run.name=lost", "resume=auto", "schedule.cooldown_fraction=0")
    directory = prepare(config)
    assert directory.manifest is not None
    assert directory.manifest.step == 4
    train(config, directory)
    assert steps(tmp_path / "mirror" / "lost") == [2, 4, 6, 8]
    lost = recorded(Path(config.run.dir) / "lost", records.TRAIN_LOSS)
    uninterrupted = run(configure(FOUR_SAVES, "run.name=uninterrupted", "schedule.cooldown_fraction=0"))
    assert lost == {step: loss for step, loss in recorded(uninterrupted, records.TRAIN_LOSS).items() if step > 4}


def test_a_run_continues_if_its_mirror_cannot_be_written(configure, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(mirror, "FIRST_PAUSE_SECONDS", 0.0)
    (tmp_path / "file").write_text("in the way")
    directory = run(configure(FOUR_SAVES, f"run.checkpoint.copy_to={tmp_path / 'file'}"))
    assert steps(directory / "checkpoints") == [2, 4, 6, 8]
    assert "is only in" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["shard", "manifest", "state"])
def test_a_damaged_checkpoint_is_skipped_and_the_curve_is_the_same(configure, capsys, damage: str) -> None:
    whole = run(configure(FOUR_SAVES, "run.name=whole", "schedule.cooldown_fraction=0"))
    half = ("run.name=half", "schedule.cooldown_fraction=0")
    directory = run(configure(FOUR_SAVES, *half, "run.num_steps=6"))
    name = {"shard": "shard-00000-of-00001.safetensors", "manifest": "manifest.json", "state": "state.json"}[damage]
    path = directory / "checkpoints" / "step-00000006" / name
    path.write_bytes(path.read_bytes()[:-100])
    run(configure(FOUR_SAVES, *half, "resume=auto"))
    assert "Trying the checkpoint before it" in capsys.readouterr().err
    assert recorded(directory, records.TRAIN_LOSS) == recorded(whole, records.TRAIN_LOSS)
