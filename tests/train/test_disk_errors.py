"""The system refuses a run's reads and writes: one sentence with the file, and no step is blamed for it."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mythos import files
from mythos.callbacks import record_file
from mythos.checkpoint import store
from mythos.cli.main import main
from mythos.config.base import ConfigError
from mythos.data.poison import failed_step
from mythos.train import module, run_directory
from mythos.train.start import start

NUMBERS = [errno.EACCES, errno.EIO, errno.ESTALE, errno.EFBIG, errno.EROFS, errno.EDQUOT]


def refusal(number: int, path: Path | None = None) -> OSError:
    """The system's error; one of a write names no file."""
    return OSError(number, os.strerror(number), *([] if path is None else [str(path)]))


@pytest.fixture
def file_limit() -> Iterator[None]:
    """The system refuses to let files grow beyond 200 kB, a part of a checkpoint's shard."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_is_too_large_is_a_sentence(packed: Path, tmp_path: Path, file_limit: None, capsys) -> None:
    options = """train model=debug optim=adamw parallel.device=cpu data.seq_len=32 data.batch_size=4 depth.mean=2
    data.micro_batch_size=4 run.num_steps=2 run.validation.every=50 run.validation.num_batches=2
    run.checkpoint.every=2 schedule.num_warmup_steps=2 run.name=run""".split()
    assert main([*options, f"data.dir={packed}", f"run.dir={tmp_path}"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(
        f"mythos: {tmp_path}/run/checkpoints/.step-00000002.tmp: rank 0 cannot write its part of step 2"
    )
    assert "File too large" in message
    assert failed_step(tmp_path / "run") is None


@pytest.mark.parametrize("number", NUMBERS)
def test_refused_records_are_a_sentence(configure, monkeypatch, tmp_path: Path, number: int) -> None:
    class Refusing:
        def write(self, text: str) -> None:
            raise refusal(number)

        def close(self) -> None:
            raise refusal(number)

    monkeypatch.setattr(record_file, "open_regular", lambda *rest: Refusing())
    with pytest.raises(ConfigError, match=rf"metrics\.jsonl: {os.strerror(number)}; "):
        start(configure())
    assert failed_step(tmp_path / "test") is None


@pytest.mark.parametrize("number", NUMBERS)
def test_any_other_file_is_a_sentence(configure, monkeypatch, tmp_path: Path, number: int) -> None:
    def refuse(*rest: Any) -> None:
        raise refusal(number, tmp_path / "table")

    monkeypatch.setattr(module, "objective", refuse)
    with pytest.raises(ConfigError, match=rf"^run\.dir: .*table: {os.strerror(number)}; .*, and resume with resume="):
        start(configure())
    assert failed_step(tmp_path / "test") is None


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["config.json", "lock"])
def test_what_a_start_writes_is_a_sentence(configure, monkeypatch, number: int, name: str) -> None:
    def refuse(path: Path, *rest: Any) -> None:
        raise refusal(number, path)

    monkeypatch.setattr(run_directory, "write_text" if name == "config.json" else "open_locked", refuse)
    with pytest.raises(ConfigError, match=rf"/test/{name}: {os.strerror(number)}; "):
        start(configure())


def test_a_file_system_without_locks_is_a_sentence(configure, monkeypatch) -> None:
    def refuse(*rest: Any) -> None:
        raise refusal(errno.ENOLCK)

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with pytest.raises(ConfigError, match=r"/test/lock: No locks available; check the file system\."):
        start(configure())


def test_an_expired_checkpoint_that_cannot_be_deleted_does_not_end_the_run(
    configure, monkeypatch, tmp_path: Path, capsys
) -> None:
    remove = store.remove

    def refuse(path: Path) -> None:
        if path.name == ".step-00000002.old":
            raise refusal(errno.EACCES, path)
        remove(path)

    monkeypatch.setattr(store, "remove", refuse)
    assert start(configure("run.checkpoint={every: 2, keep_last: 2}")) == 0
    assert [path.name for path in store.checkpoints(tmp_path / "test" / "checkpoints")] == [
        "step-00000006",
        "step-00000008",
    ]
    folder, error = tmp_path / "test" / "checkpoints", capsys.readouterr().err
    reason = f"cannot be deleted: {folder}/.step-00000002.old: Permission denied; give this user the permission.\n"
    assert error.count(f"warning: {folder}/step-00000002: {reason}") == 1, "when it expires after step 6"
    assert error.count(f"warning: {folder}/.step-00000002.old: {reason}") == 1, "before the save of step 8"
