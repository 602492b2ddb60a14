"""A run's directory, and the checks before a run starts. No torch."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from mythos.checkpoint import ownership, store
from mythos.checkpoint.manifest import Manifest, read_manifest, verify
from mythos.checkpoint.mirror import Unreachable, newest
from mythos.checkpoint.names import step_of
from mythos.checkpoint.packages import changed_packages
from mythos.config import foreign, records
from mythos.config.base import ConfigError, decode, difference, encode, fingerprint
from mythos.config.os_errors import explained
from mythos.config.parts import check_parts
from mythos.config.run import RunConfig
from mythos.config.schema import encode_run
from mythos.config.tracking import check_library
from mythos.data import poison
from mythos.data.kept import keep_tokenizer
from mythos.data.manifest import check_vocabulary, data_fingerprint
from mythos.files import open_locked, open_regular, write_text
from mythos.train.asked_mirror import asked_mirror
from mythos.train.earlier_run import check_beginning, holds_run
from mythos.train.refusal import Before

_FIXED = ("model.", "run.seed", "data.seq_len", "optim.kind", "optim.name")
"""Parts of the configuration that must not change when a run resumes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDirectory:
    """Directory of a run, its data, and the checkpoint from which it resumes."""

    path: Path
    data_fingerprint: str
    checkpoint: Path | None
    manifest: Manifest | None
    """Manifest of the checkpoint."""
    origin: Path | None
    """Checkpoint of another run from which a new run takes its initial weights."""
    run_id: str | None = None
    """``checkpoint.ownership``."""
    skipped: tuple[poison.Step, ...] = ()
    """Steps on whose data the run has failed too often."""

    @property
    def checkpoints(self) -> Path:
        """Directory of the run's checkpoints."""
        return self.path / store.FOLDER


def prepare(config: RunConfig) -> RunDirectory:
    """Check tracker, data, directory and checkpoint against the configuration; then create the directory.

    Raises:
        ConfigError: before anything has been written.
    """
    check_library(config.tracking)
    foreign.check(config)
    data_fingerprint = _check_data(config)
    path = Path(config.run.dir) / config.run.name
    resumed = _find_checkpoint(config, path)
    _check_free(config, path)
    if resumed is not None:
        _check_resume(config, data_fingerprint, *resumed)
    run_id = _run_id(config, path, resumed)
    if config.resume != "auto":
        _check_mirror(config, run_id)
    starts_from = config.run.init_from if resumed is None else None
    origin = None if starts_from is None else _find_origin(config, Path(starts_from))
    _create(path)
    skipped = _skipped(config, path, 0 if resumed is None else resumed[1].step)
    with explained(path / "config.json"):
        write_text(path / "config.json", json.dumps(encode_run(config), indent=1))
    with explained(path / ownership.FILE_NAME):
        ownership.write_id(path, run_id)
    keep_tokenizer(path, config.data.directories, data_fingerprint, config.data.stage_weights[0][1])
    checkpoint, manifest = resumed or (None, None)
    return RunDirectory(
        path=path,
        data_fingerprint=data_fingerprint,
        checkpoint=checkpoint,
        manifest=manifest,
        origin=origin,
        run_id=run_id,
        skipped=skipped,
    )


@contextmanager
def lock(config: RunConfig) -> Iterator[None]:
    """Lock the run's directory: two processes that train in it would delete each other's checkpoints.

    If the start is refused by a ConfigError before anything was recorded, the directory is left as it was.

    Raises:
        ConfigError: another process has locked it, or it cannot be locked.
    """
    path = Path(config.run.dir) / config.run.name
    before, started_at = Before(path), time.time()
    _create(path)
    with explained(path / "lock"):
        file = _locked(path)
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        file.flush()
        try:
            yield
        except ConfigError:
            if not _has_recorded(path, started_at):
                before.restore()
            raise


def check_unlocked(config: RunConfig) -> None:
    """Check that no process trains in the run's directory; nothing is created.

    Raises:
        ConfigError: a process does.
    """
    path = Path(config.run.dir) / config.run.name
    if (path / "lock").exists():
        with explained(path / "lock"):
            _locked(path).close()


def _locked(path: Path) -> IO[bytes]:
    """Return the open lock of a run's directory."""
    try:
        return open_locked(path / "lock")
    except BlockingIOError:
        with open_regular(path / "lock", "rb") as file:
            holder = file.read().decode("utf-8", "replace").strip() or "another process"
        raise ConfigError(
            f"run.name: {path} is being trained in by {holder}; wait for it, stop it, or choose another run.name."
        ) from None


def _has_recorded(path: Path, started_at: float) -> bool:
    """Whether a start has recorded or saved a step."""
    if any(checkpoint.stat().st_mtime >= started_at for checkpoint in store.checkpoints(path / store.FOLDER)):
        return True
    metrics = path / records.FILE_NAME
    lines = metrics.read_bytes().splitlines() if metrics.exists() else []
    try:
        return len(lines) > 1 and bool(json.loads(lines[-1])["time"] >= started_at)
    except (ValueError, KeyError, TypeError):  # a damaged line, which only a started run leaves
        return True


def refuse(config: RunConfig) -> None:
    """Make the checks of ``prepare`` that need no checkpoint, before processes are started.

    Raises:
        ConfigError: the data do not fit, or the directory holds another run.
    """
    check_library(config.tracking)
    foreign.check(config)
    _check_data(config)
    _check_free(config, Path(config.run.dir) / config.run.name)


def check_packages(config: RunConfig) -> None:
    """Check the loop parts, and first the packages that the checkpoint to resume was trained with.

    Raises:
        ConfigError: a package is not installed, or see ``config.parts.check_parts``.
    """
    own = store.checkpoints(Path(config.run.dir) / config.run.name / store.FOLDER)
    checkpoints = {"never": [], "auto": own[-1:]}.get(config.resume, [Path(config.resume)])
    for checkpoint in checkpoints:
        try:
            manifest = read_manifest(checkpoint)
        except ConfigError:
            continue  # prepare takes an earlier checkpoint, or reports the mistake
        changed_packages(manifest, f"resume: {checkpoint}")
    check_parts(config.model)


def _check_free(config: RunConfig, path: Path) -> None:
    if config.resume == "never" and holds_run(path):
        raise ConfigError(
            f"run.name: {path} already holds a run; resume it with resume=auto, or choose another run.name."
        )


def _check_data(config: RunConfig) -> str:
    """Check vocabulary and number of tokens against model and schedule, and return the fingerprint of the data."""
    check_vocabulary(config.data.directories, config.model.vocab_size)
    if config.data.max_epochs is not None:
        from mythos.data.epochs import check_epochs  # imports numpy

        check_epochs(config)
    return data_fingerprint(config.data.directories)


def _find_checkpoint(config: RunConfig, path: Path) -> tuple[Path, Manifest] | None:
    match config.resume:
        case "never":
            return None
        case "auto":
            return _find_newest(config, path)
        case checkpoint:
            manifest = verify(Path(checkpoint))
            _check_branch(Path(checkpoint), manifest.step, path / store.FOLDER)
            return Path(checkpoint), manifest


def _find_newest(config: RunConfig, path: Path) -> tuple[Path, Manifest] | None:
    """Find the newest valid checkpoint, local or in the mirror, and print why later ones are skipped; None for a new
    run."""
    directory = path / store.FOLDER
    reasons: list[str] = []
    before = store.checkpoints(directory)
    with asked_mirror(config.run) as mirror:
        result = newest(directory, mirror, reasons.append)
        if result is None:
            check_beginning(path, [] if mirror is None else mirror.checkpoints(), reasons)
    for reason in reasons:
        store.warn_on_stderr(reason)
    if mirror is not None and result is not None and result[0] not in before:
        print(f"resume: {result[0].name} was only in {mirror.url}; it is now in {directory}", file=sys.stderr)
    return result


def _run_id(config: RunConfig, path: Path, resumed: tuple[Path, Manifest] | None) -> str:
    """Return the id of the run in this directory, or a new one for a new run or one of another directory."""
    if config.resume == "never":
        return ownership.new_id()
    is_own = resumed is not None and resumed[0].resolve().parent == (path / store.FOLDER).resolve()
    return ownership.own_id(path, resumed[1] if resumed is not None and is_own else None) or ownership.new_id()


def _check_mirror(config: RunConfig, run_id: str) -> None:
    """Refuse to share a mirror with another run, for a run that takes no checkpoint from it."""
    try:
        with asked_mirror(config.run) as mirror:
            if mirror is None:
                return
            if config.resume == "never" and (names := mirror.checkpoints()):
                raise ConfigError(
                    f"run.checkpoint.copy_to: {mirror.url} already holds copies of a run of this name, the last "
                    f"{names[-1]}; resume it with resume=auto, delete them, or choose another run.name."
                )
            ownership.check_owner(mirror.url, mirror.manifests(), run_id)
    except Unreachable as error:
        store.warn_on_stderr(f"{error} The run starts without having seen whether another run has copies there.")


def _check_branch(checkpoint: Path, step: int, own: Path) -> None:
    """Refuse to resume a run from a checkpoint before its last, which would overwrite the later ones."""
    later = [path for path in store.checkpoints(own) if step_of(path.name) > step]
    if not later:
        return
    if checkpoint.resolve().parent == own.resolve():
        raise ConfigError(
            f"resume: {checkpoint} is followed by {later[-1].name} in the same run; choose another run.name "
            "to branch off from it, or resume=auto to resume from the last one."
        )
    raise ConfigError(
        f"resume: {checkpoint} is of step {step}, but {own.parent} already holds {later[-1].name}, which would be "
        "overwritten; choose another run.name, or resume=auto to resume from the last one."
    )


def _check_resume(config: RunConfig, data_fingerprint: str, checkpoint: Path, manifest: Manifest) -> None:
    """Refuse changes that the checkpoint does not allow, and print the other changes."""
    changes = difference(encode(decode(RunConfig, manifest.config)), encode(config))
    fatal = [line for line in changes if line.startswith(_FIXED)]
    if manifest.data_fingerprint != data_fingerprint:
        fatal.append(f"data set: {manifest.data_fingerprint} -> {data_fingerprint}")
    if fatal:
        raise ConfigError(
            f"resume: {checkpoint} belongs to another run; undo these changes or choose another run.name:\n  "
            + "\n  ".join(fatal)
        )
    if manifest.step > config.run.num_steps:
        raise ConfigError(
            f"run.num_steps is {config.run.num_steps} but {checkpoint} has already trained {manifest.step} steps; "
            "raise run.num_steps."
        )
    for line in changed_packages(manifest, f"resume: {checkpoint}"):
        print(line, file=sys.stderr)
    for line in changes:
        if not line.startswith("resume:"):
            print(f"resume: changed since the checkpoint: {line}", file=sys.stderr)


def _find_origin(config: RunConfig, run: Path) -> Path:
    """Return the checkpoint with the initial weights; its run must have trained the same model."""
    newest = store.newest(run / store.FOLDER)
    if newest is None:
        raise ConfigError(f"run.init_from: {run} holds no checkpoint that verifies; name a run's directory.")
    checkpoint, manifest = newest
    changes = difference(encode(decode(RunConfig, manifest.config).model), encode(config.model))
    if changes:
        raise ConfigError(f"run.init_from: {run} trained another model:\n  model." + "\n  model.".join(changes))
    return checkpoint


def _skipped(config: RunConfig, path: Path, reached: int) -> tuple[poison.Step, ...]:
    """Return the steps whose data are skipped, with the failure of the last attempt counted."""
    if config.resume == "never":
        poison.forget(path)
        return ()
    return poison.poisoned(path, reached, fingerprint(replace(config, resume="auto")), config.run.max_poison_skips)


def _create(path: Path) -> None:
    """Create the run's directory and check that it can be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run.dir: {path} cannot be created ({error.strerror}); choose another run.dir.") from None
    if not os.access(path, os.W_OK):
        raise ConfigError(f"run.dir: {path} cannot be written to; choose another run.dir.")
