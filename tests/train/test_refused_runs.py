"""A run that is refused leaves nothing behind: neither a folder, nor changes of a run that is already there."""

import json
from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.train import build
from mythos.train.run_directory import check_unlocked, lock, prepare
from mythos.train.start import train

REFUSING = "def refuse(*_, **__): return {}\n"
ENTRY = ["refusing = refusing_parts:refuse"]


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["run.init_from=nowhere"], "run.init_from: nowhere holds no checkpoint that verifies"),
        (["resume=nowhere"], "nowhere: no checkpoint here"),
        (["tracking=foreign", "tracking.name=refusing"], r"tracking.name: refusing returns a dict; it must return a"),
        (["optim=foreign", "optim.name=refusing", "optim.lr=0.1"], "optim"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_refused_start_leaves_no_folder(configure, install, monkeypatch, tmp_path, overrides, sentence) -> None:
    install("refusing_parts", "1", REFUSING, trackers=ENTRY, optimizers=ENTRY)
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        train(configure(f"run.dir={tmp_path / 'new' / 'runs'}", *overrides))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "overrides",
    [["run.seed=1"], ["run.num_steps=4"], ["run.num_steps=10", "tracking=foreign", "tracking.name=refusing"]],
    ids=" ".join,
)
def test_a_refused_resume_leaves_the_run_as_it_was(configure, install, overrides) -> None:
    """Also one that is refused once its configuration and its code have been written."""
    install("refusing_parts", "1", REFUSING, trackers=ENTRY)
    train(configure())
    path = Path(configure().run.dir, "test")
    before = contents(path)
    with pytest.raises(ConfigError):
        train(configure("resume=auto", *overrides))
    assert contents(path) == before


def test_what_was_recorded_is_kept(configure, monkeypatch) -> None:
    """A ConfigError after the first step, as by a full disk, is no refusal."""

    def train_one_step(config, directory, *_: object) -> None:
        run = {"schema": 1}, {"step": 1, "time": 4e9, "tokens": 1}
        (directory.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in run))
        raise ConfigError("the disk is full")

    monkeypatch.setattr(build, "train", train_one_step)
    config = configure()
    with pytest.raises(ConfigError, match="the disk is full"):
        train(config)
    names = {path.name for path in Path(config.run.dir, config.run.name).iterdir()}
    assert names == {"config.json", "data.json", "lock", "metrics.jsonl", "run-id", "tokenizer.json"}


def test_a_run_that_is_trained_elsewhere_is_left_alone(configure) -> None:
    config = configure()
    path = Path(config.run.dir, config.run.name)
    check_unlocked(config)
    assert not path.exists()
    with lock(config):
        prepare(config)
        before = contents(path)
        for refuse in (lambda: lock(config).__enter__(), lambda: check_unlocked(config)):
            with pytest.raises(ConfigError, match=r"is being trained in by process \d+ on .*; wait for it"):
                refuse()
        assert contents(path) == before
    check_unlocked(config)
