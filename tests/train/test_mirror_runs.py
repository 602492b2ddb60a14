"""Runs and their mirrors: no step, stop or end waits without limit, and two runs of one name never mix."""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import recorded, wait_until

from mythos.checkpoint.manifest import read_manifest
from mythos.checkpoint.mirror import Mirror
from mythos.checkpoint.ownership import read_id
from mythos.checkpoint.store import checkpoints
from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.exit_status import PREEMPTED
from mythos.train.build import train
from mythos.train.run_directory import prepare
from mythos.train.start import start

FOUR_SAVES = "run.checkpoint={every: 2, keep_last: 9}"
LONG = ("schedule.cooldown_fraction=0",)


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints(folder)]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an endpoint that accepts connections and never answers."""
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield "s3://bucket"


def test_a_silent_mirror_delays_only_the_start_and_the_end_of_a_new_run(configure, silent: str, capsys) -> None:
    """By a second each; every copy is tried and given up beside the training."""
    config = configure(FOUR_SAVES, f"run.checkpoint.copy_to={silent}", "run.checkpoint.copy_timeout_seconds=1")
    begun_at = time.monotonic()
    assert start(config) == 0
    assert time.monotonic() - begun_at < 60, "botocore alone would try for minutes"
    run = Path(config.run.dir) / "test"
    assert steps(run / "checkpoints") == [2, 4, 6, 8]
    error = capsys.readouterr().err
    assert "s3://bucket/test: cannot list the copies (no answer within 1 seconds)" in error
    assert "The run starts without having seen whether another run has copies there." in error
    assert f"step-00000008 is only in {run / 'checkpoints'}" in error or "step-00000008 was not copied" in error


def test_a_run_does_not_resume_from_a_silent_mirror(configure, silent: str) -> None:
    options = [f"run.checkpoint.copy_to={silent}", "resume=auto"]
    with pytest.raises(ConfigError, match=r"s3://bucket/test: cannot list the copies \(no answer within 1 seconds\)"):
        prepare(configure(*options, "run.checkpoint.copy_timeout_seconds=1"))


@pytest.mark.parametrize("resume", ["never", "auto"])
def test_a_signal_ends_the_wait_for_a_silent_mirror_at_the_start(configure, silent: str, capsys, resume: str) -> None:
    config = configure(f"run.checkpoint.copy_to={silent}", f"resume={resume}")
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    begun_at = time.monotonic()
    assert start(config) == PREEMPTED
    assert time.monotonic() - begun_at < 30
    assert "while s3://bucket/test was read: ended before the first step" in capsys.readouterr().err


def test_a_hanging_copy_stops_neither_steps_nor_saves_nor_the_end(
    configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The mirror answers at first, and then hangs while the checkpoint of step 2 is copied."""
    released = threading.Event()
    monkeypatch.setattr(Mirror, "_send", lambda self, source, target: released.wait())
    options = [f"run.checkpoint.copy_to={tmp_path / 'mirror'}", "run.checkpoint.copy_timeout_seconds=2"]
    options += ["run.checkpoint.every=2", "run.checkpoint.keep_last=1", "run.stall_seconds=60"]
    begun_at = time.monotonic()
    assert start(configure(*options)) == 0
    assert time.monotonic() - begun_at < 60
    assert steps(tmp_path / "test" / "checkpoints")[-1] == 8
    assert recorded(tmp_path / "test", records.TRAIN_LOSS).keys() == set(range(1, 9))
    assert "is only in" in capsys.readouterr().err
    released.set()


def test_the_end_of_a_run_waits_for_its_last_copy(configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send = Mirror._send
    monkeypatch.setattr(Mirror, "_send", lambda self, *rest: (time.sleep(0.3), send(self, *rest)))
    assert start(configure(f"run.checkpoint.copy_to={tmp_path / 'mirror'}", "run.checkpoint.every=1")) == 0
    assert steps(tmp_path / "mirror" / "test")[-1] == 8


def test_what_is_being_copied_is_not_deleted(configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves are faster than copies; the mirror gets the newest that there is, each of them complete."""
    send, sent = Mirror._send, []

    def slow(self: Mirror, source: Path, target: str) -> None:
        if source.name == "manifest.json":
            sent.append(source.parent.name)
            wait_until(lambda: bool(recorded(tmp_path / "test", records.TRAIN_LOSS).get(7)) or len(sent) > 1)
        send(self, source, target)

    monkeypatch.setattr(Mirror, "_send", slow)
    keep_one = "run.checkpoint={every: 1, keep_last: 1}"
    assert start(configure(keep_one, f"run.checkpoint.copy_to={tmp_path / 'mirror'}")) == 0
    assert sent[0] == "step-00000001"
    assert sent[-1] == "step-00000008"
    assert len(sent) < 8
    assert steps(tmp_path / "mirror" / "test") == [8]
    assert steps(tmp_path / "test" / "checkpoints") == [8]


def test_two_runs_of_one_name_do_not_share_a_mirror(configure, tmp_path: Path) -> None:
    options = [FOUR_SAVES, f"run.checkpoint.copy_to={tmp_path / 'mirror'}", *LONG]
    first = [*options, f"run.dir={tmp_path / 'a'}"]
    second = [*options, f"run.dir={tmp_path / 'b'}"]
    assert start(configure(*first, "run.num_steps=4")) == 0
    copies = tmp_path / "mirror" / "test"
    before = {path.name: read_manifest(path) for path in checkpoints(copies)}
    assert steps(copies) == [2, 4]

    with pytest.raises(ConfigError, match=rf"copy_to: {copies} already holds copies .* the last step-00000004; resume"):
        prepare(configure(*second))
    foreign = rf"copy_to: {copies}/step-00000004 belongs to another run .* trained in {tmp_path / 'a' / 'test'}; choose"
    with pytest.raises(ConfigError, match=foreign):
        prepare(configure(*second, "resume=auto"))
    alone = configure(FOUR_SAVES, *LONG, f"run.dir={tmp_path / 'b'}", "run.num_steps=2")
    assert start(alone) == 0
    with pytest.raises(ConfigError, match=foreign):
        prepare(configure(*second, "resume=auto"))
    with pytest.raises(ConfigError, match=foreign):
        prepare(configure(*second, f"resume={tmp_path / 'b' / 'test' / 'checkpoints' / 'step-00000002'}"))
    assert {path.name: read_manifest(path) for path in checkpoints(copies)} == before

    assert start(configure(*first, "resume=auto")) == 0
    assert steps(copies) == [2, 4, 6, 8]
    assert len({read_manifest(path).run_id for path in checkpoints(copies)}) == 1


def test_runs_that_start_together_do_not_overwrite_each_others_copies(configure, tmp_path: Path, capsys) -> None:
    """Both have seen an empty mirror; the later one finds the copies of the other, and makes none."""
    options = [FOUR_SAVES, f"run.checkpoint.copy_to={tmp_path / 'mirror'}"]
    configs = [configure(*options, f"run.dir={tmp_path / name}") for name in "ab"]
    directories = [prepare(config) for config in configs]
    for config, directory in zip(configs, directories, strict=True):
        train(config, directory)
    copies = checkpoints(tmp_path / "mirror" / "test")
    assert {read_manifest(path).run_id for path in copies} == {directories[0].run_id}
    assert steps(tmp_path / "b" / "test" / "checkpoints") == [2, 4, 6, 8]
    assert f"belongs to another run of this name, which was trained in {tmp_path / 'a' / 'test'}" in (
        capsys.readouterr().err
    )


def test_a_moved_folder_keeps_its_mirror_and_a_copied_one_has_none(configure, tmp_path: Path) -> None:
    options = [FOUR_SAVES, f"run.checkpoint.copy_to={tmp_path / 'mirror'}", *LONG]
    assert start(configure(*options, f"run.dir={tmp_path / 'a'}", "run.num_steps=4")) == 0
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "test").rename(tmp_path / "b" / "test")
    assert start(configure(*options, f"run.dir={tmp_path / 'b'}", "run.num_steps=6", "resume=auto")) == 0
    copies = checkpoints(tmp_path / "mirror" / "test")
    assert [path.name for path in copies] == ["step-00000002", "step-00000004", "step-00000006"]
    assert {read_manifest(path).run_id for path in copies} == {read_id(tmp_path / "b" / "test")}

    shutil.copytree(tmp_path / "b" / "test", tmp_path / "c" / "test")
    with pytest.raises(ConfigError, match=f"belongs to another run .* trained in {tmp_path / 'b' / 'test'}"):
        prepare(configure(*options, f"run.dir={tmp_path / 'c'}", "resume=auto"))
    without = configure(FOUR_SAVES, *LONG, f"run.dir={tmp_path / 'c'}", "resume=auto")
    assert prepare(without).manifest.step == 6
    assert read_id(tmp_path / "c" / "test") != read_id(tmp_path / "b" / "test")

    shutil.rmtree(tmp_path / "b" / "test" / "checkpoints")
    (tmp_path / "b" / "test" / "metrics.jsonl").unlink()
    assert prepare(configure(*options, f"run.dir={tmp_path / 'b'}", "resume=auto")).manifest.step == 6


def test_a_branch_is_a_run_of_its_own(configure, tmp_path: Path) -> None:
    assert start(configure(FOUR_SAVES, *LONG, "run.num_steps=4")) == 0
    checkpoint = tmp_path / "test" / "checkpoints" / "step-00000002"
    branch = prepare(configure(FOUR_SAVES, *LONG, f"resume={checkpoint}", "run.name=branch"))
    assert branch.run_id == read_id(tmp_path / "branch") != read_id(tmp_path / "test")
    assert prepare(configure(FOUR_SAVES, *LONG, "resume=auto", "run.name=branch")).run_id == branch.run_id


def test_a_run_without_an_id_keeps_its_mirror_and_gets_one(configure, tmp_path: Path) -> None:
    """As an earlier version of the schema left it."""
    options = [FOUR_SAVES, f"run.checkpoint.copy_to={tmp_path / 'mirror'}", *LONG]
    assert start(configure(*options, "run.num_steps=4")) == 0
    for folder in (tmp_path / "test" / "checkpoints", tmp_path / "mirror" / "test"):
        for path in checkpoints(folder):
            replace(read_manifest(path), run_id=None, run_dir=None).write(path)
    (tmp_path / "test" / "run-id").unlink()
    assert start(configure(*options, "resume=auto")) == 0
    ids = [read_manifest(path).run_id for path in checkpoints(tmp_path / "mirror" / "test")]
    assert ids == [None, None, *[read_id(tmp_path / "test")] * 2]
    assert ids[-1] is not None
