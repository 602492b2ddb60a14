"""Links in a run's directory that came from elsewhere: nothing outside the directory is written or read."""

import os
import shutil
from pathlib import Path

import pytest

from mythos.cli.main import main
from mythos.files import open_regular
from mythos.parallel.watchdog import Watchdog
from mythos.train.run_directory import lock, prepare
from mythos.train.start import start

SECRET = '{"step": 1, "secret": 1}\n'


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file outside the run's directory."""
    path = tmp_path / "target"
    path.write_text(SECRET)
    return path


def plant(run: Path, target: Path, *names: str) -> None:
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).symlink_to(target)


@pytest.mark.parametrize("name", ["lock", "failures.json", "saved", "metrics.jsonl", "trace.jsonl"])
def test_a_link_that_would_be_read_or_appended_to_is_refused(configure, target: Path, capsys, name: str) -> None:
    config = configure("resume=auto", "run.num_steps=1", "schedule.num_warmup_steps=1")
    run = Path(config.run.dir) / config.run.name
    plant(run, target, name)
    options = ["model=debug", "optim=adamw", "parallel.device=cpu", f"run.dir={run.parent}", "run.name=test"]
    options += [f"data.dir={config.data.directories[0]}", "data.seq_len=32", "run.num_steps=1", "resume=auto"]
    options += ["schedule.num_warmup_steps=1", "data.batch_size=2", "data.micro_batch_size=2", "depth.mean=2"]
    options += ["run.validation.num_batches=1"]
    assert main(["train", *options]) == 2
    sentence = f"mythos: {run / name}: it is a link, which is not followed; replace the link by a file.\n"
    assert capsys.readouterr().err.endswith(sentence)
    assert target.read_text() == SECRET


def test_a_link_that_would_be_replaced_is_replaced(configure, target: Path) -> None:
    config = configure("run.num_steps=2")
    run = Path(config.run.dir) / config.run.name
    names = ["step", "config.json", "provenance/step-00000000.json", "checkpoints/latest"]
    names += [f".config.json.tmp-{os.getpid()}", f".metrics.jsonl.tmp-{os.getpid()}", "checkpoints/.step-00000002.tmp"]
    plant(run, target, *names)
    assert start(config) == 0
    assert target.read_text() == SECRET
    assert (run / "checkpoints" / "latest").read_text() == "step-00000002\n"
    for name in names:
        assert not (run / name).is_symlink()


def test_the_lock_is_refused_before_it_is_truncated(configure, target: Path) -> None:
    config = configure()
    run = Path(config.run.dir) / config.run.name
    plant(run, target, "lock")
    with pytest.raises(ValueError, match=r"lock: it is a link, which is not followed"), lock(config):
        pass
    (run / "lock").unlink()
    with lock(config), pytest.raises(ValueError, match=r"is being trained in by process"), lock(config):
        pass


def test_stacks_are_not_written_through_a_link(target: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    plant(tmp_path / "logs", target, "rank-0.stacks", "rank-0.collectives.json")
    monkeypatch.setattr(os, "_exit", lambda status: None)
    monkeypatch.setattr("mythos.parallel.watchdog._flight_record", lambda: b"{}")
    Watchdog(tmp_path / "logs", 1.0)._end_process("in step 1", linger=0)
    assert target.read_text() == SECRET
    assert f"{tmp_path / 'logs' / 'rank-0.stacks'} cannot be written: it is a link" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "trace.jsonl"])
def test_a_report_does_not_read_through_a_link(configure, target: Path, capsys, name: str) -> None:
    config = configure("run.num_steps=3")
    assert start(config) == 0
    run = Path(config.run.dir) / config.run.name
    shutil.copy(run / name, target)
    (run / name).unlink()
    plant(run, target, name)
    assert main(["report", str(run)]) == 2
    assert f"{run / name}: it is a link, which is not followed" in capsys.readouterr().err


def test_the_folder_itself_may_be_a_link(configure, tmp_path: Path) -> None:
    config = configure()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "test").symlink_to(tmp_path / "scratch")
    assert prepare(config).path == tmp_path / "test"
    with lock(config):
        assert (tmp_path / "scratch" / "lock").is_file()


def test_something_else_than_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for mode in ("rb", "ab", "r", "a+b"):
        with pytest.raises(OSError, match=r"No such device or address|it is not a regular file"):
            open_regular(tmp_path / "pipe", mode)
    with pytest.raises(OSError, match="it is not a regular file"):
        open_regular(tmp_path, "rb")
