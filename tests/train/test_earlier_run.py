"""A directory whose checkpoints cannot be used is not a new run: nothing in it is cut or overwritten."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import recorded

from mythos import files
from mythos.checkpoint.manifest import manifest_text
from mythos.cli.main import main
from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.load import load
from mythos.train import module
from mythos.train.run_directory import prepare
from mythos.train.start import start


@pytest.fixture(scope="module")
def finished(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, saved at two and at four."""
    folder = tmp_path_factory.mktemp("finished")
    assert main(command(packed, folder, "resume=never")) == 0
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def command(packed: Path, folder: Path, *overrides: str) -> list[str]:
    options = """train model=debug optim=adamw parallel.device=cpu data.seq_len=32 data.batch_size=4 depth.mean=2
    data.micro_batch_size=4 run.num_steps=4 run.validation.every=50 run.validation.num_batches=2 tracking.log_every=1
    run.checkpoint.every=2 schedule.num_warmup_steps=2 run.name=run resume=auto""".split()
    return [*options, f"data.dir={packed}", f"run.dir={folder}", *overrides]


def contents(run: Path) -> dict[str, bytes | str]:
    """Everything in a run's directory but the lock, by path: what links lead to, and the bytes of files."""
    paths = [path for path in run.rglob("*") if path.name != "lock" and (path.is_symlink() or path.is_file())]
    return {str(path): str(path.readlink()) if path.is_symlink() else path.read_bytes() for path in paths}


def checkpoints_of(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").iterdir())[1:]


def other_version(run: Path) -> str:
    for path in checkpoints_of(run):
        raw = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(manifest_text(raw | {"version": 2}))
    return "step-00000004/manifest.json: written by schema 2, but"


def missing(run: Path) -> str:
    shutil.rmtree(run / "checkpoints")
    return "holds a run, but its checkpoint step-00000004 is missing"


def missing_from_before(run: Path) -> str:
    """As of a version that did not record what it had saved."""
    (run / "saved").unlink()
    shutil.rmtree(run / "checkpoints")
    return f"holds a run, but {run / 'checkpoints'} is missing"


def emptied(run: Path) -> str:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    return "holds a run, but its checkpoint step-00000004 is missing"


def dangling(run: Path) -> str:
    (run / "checkpoints").rename(run / "elsewhere")
    (run / "checkpoints").symlink_to("scratch")
    return "a link to scratch, which is not a folder; mount or restore it"


def not_mounted(run: Path) -> str:
    (run / "checkpoints").rename(run / "elsewhere")
    (run / "scratch").mkdir()
    (run / "checkpoints").symlink_to("scratch")
    return "holds a run, but its checkpoint step-00000004 is missing"


def no_folder(run: Path) -> str:
    (run / "checkpoints").rename(run / "elsewhere")
    (run / "checkpoints").write_text("")
    return "the checkpoints cannot be listed: Not a directory"


def damaged(run: Path) -> str:
    for path in checkpoints_of(run):
        (path / "state.json").write_text("{}")
    return "none of its checkpoints can be used"


def without_manifests(run: Path) -> str:
    for path in checkpoints_of(run):
        (path / "manifest.json").unlink()
    (run / "metrics.jsonl").unlink()
    (run / "saved").unlink()
    return "none of its checkpoints can be used"


def without_records(run: Path) -> str:
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").unlink()
    return "holds a run, but its checkpoint step-00000004 is missing"


def special(run: Path) -> str:
    for path in checkpoints_of(run):
        (path / "manifest.json").unlink()
        os.mkfifo(path / "manifest.json")
    return "none of its checkpoints can be used"


LOSSES = [other_version, missing, missing_from_before, emptied, dangling, not_mounted, no_folder, damaged]
LOSSES += [without_manifests, without_records, special]


@pytest.mark.parametrize("lose", LOSSES)
def test_lost_checkpoints_end_the_start_with_a_sentence(
    packed: Path, run: Path, capsys, lose: Callable[[Path], str]
) -> None:
    sentence = lose(run)
    before = contents(run)
    for resume in ("auto", "never"):
        capsys.readouterr()
        assert main(command(packed, run.parent, f"resume={resume}")) == 2
        error = capsys.readouterr().err
        assert error.startswith("mythos: ")
        assert error.count("\n") == 1
        if resume == "auto":
            assert sentence in error
        assert contents(run) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", ["manifest.json", "saved", "metrics.jsonl"])
def test_unreadable_files_end_the_start_with_a_sentence(
    packed: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys, name: str, number: int
) -> None:
    if name != "manifest.json":
        shutil.rmtree(run / "checkpoints")
    if name == "metrics.jsonl":
        (run / "saved").unlink()
    before, original = contents(run), files.open_descriptor

    def refuse(path: Path, flags: int) -> int:
        if path.name == name and run in path.parents:
            raise OSError(number, os.strerror(number), str(path))
        return original(path, flags)

    monkeypatch.setattr(files, "open_descriptor", refuse)
    assert main(command(packed, run.parent)) == 2
    error = capsys.readouterr().err
    assert error.startswith("mythos: ")
    assert error.count("\n") == 1
    assert f"{name}: {os.strerror(number)}" in error
    monkeypatch.undo()
    assert contents(run) == before


def test_a_folder_that_cannot_be_listed_ends_the_start(packed: Path, run: Path, monkeypatch, capsys) -> None:
    before, original = contents(run), Path.iterdir

    def refuse(path: Path):
        if path == run / "checkpoints":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return original(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main(command(packed, run.parent)) == 2
    reason = "the checkpoints cannot be listed: Stale file handle; check the file system."
    assert capsys.readouterr().err == f"mythos: {run / 'checkpoints'}: {reason}\n"
    monkeypatch.undo()
    assert contents(run) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_an_unreadable_checkpoint_is_skipped_for_the_one_before_it(
    packed: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys, number: int
) -> None:
    original = files.sha256

    def refuse(path: Path) -> str:
        if path.parent.name == "step-00000004":
            raise OSError(number, os.strerror(number), str(path))
        return original(path)

    monkeypatch.setattr("mythos.checkpoint.manifest.sha256", refuse)
    assert prepare(load(command(packed, run.parent)[1:])).manifest.step == 2
    error = capsys.readouterr().err
    assert f"warning: {run}/checkpoints/step-00000004: cannot be read: " in error
    assert f"{os.strerror(number)}; " in error
    assert "Trying the checkpoint before it." in error


def test_a_mirror_whose_copies_are_all_damaged_is_no_new_run(packed: Path, run: Path, capsys) -> None:
    mirror = run.parent / "mirror"
    shutil.copytree(run / "checkpoints", mirror / "run")
    shutil.rmtree(run)
    (mirror / "run" / "latest").unlink()
    for path in (mirror / "run").iterdir():
        (path / "state.json").write_text("{}")
        raw = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(manifest_text(raw | {"run_dir": str(run)}))
    before = contents(mirror)
    assert main(command(packed, run.parent, f"run.checkpoint.copy_to={mirror}")) == 2
    error = capsys.readouterr().err
    assert "none of its checkpoints can be used" in error
    assert error.count("\n") == 1
    assert contents(mirror) == before


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(configure, monkeypatch, tmp_path: Path) -> None:
    objective = module.objective

    def failing(config, output, batch, *rest):
        if 8 in batch.sample_ids_B.tolist():  # in the third step
            raise RuntimeError
        return objective(config, output, batch, *rest)

    monkeypatch.setattr(module, "objective", failing)
    with pytest.raises(RuntimeError):
        start(configure())
    assert recorded(tmp_path / "test", records.TRAIN_LOSS).keys() == {1, 2}
    monkeypatch.undo()
    config = configure("resume=auto")
    assert start(config) == 0
    assert recorded(tmp_path / "test", records.TRAIN_LOSS).keys() == set(range(1, 9))
    assert (tmp_path / "test" / "saved").read_text() == "step-00000008\n"


def test_a_checkpoint_of_another_run_does_not_replace_later_ones(packed: Path, run: Path) -> None:
    other = Path(shutil.copytree(run, run.parent / "other"))
    earlier = other / "checkpoints" / "step-00000002"
    with pytest.raises(ConfigError, match=r"is of step 2, but .*run already holds step-00000004, which would be over"):
        prepare(load(command(packed, run.parent, f"resume={earlier}")[1:]))
    assert prepare(load(command(packed, run.parent, f"resume={earlier}", "run.name=branch")[1:])).manifest.step == 2
