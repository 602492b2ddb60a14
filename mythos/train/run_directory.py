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
from typing import TextIO

from mythos.checkpoint import mirror, store
from mythos.checkpoint.manifest import Manifest, read_manifest, verify
from mythos.checkpoint.packages import changed_packages
from mythos.config import foreign, records
from mythos.config.base import ConfigError, decode, difference, encode, fingerprint
from mythos.config.parts import check_parts
from mythos.config.run import RunConfig
from mythos.config.schema import encode_run
from mythos.config.tracking import check_library
from mythos.data import poison
from mythos.data.kept import keep_tokenizer
from mythos.data.manifest import check_vocabulary, data_fingerprint
from mythos.files import open_locked, write_text
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
    starts_from = config.run.init_from if resumed is None else None
    origin = None if starts_from is None else _find_origin(config, Path(starts_from))
    _create(path)
    skipped = _skipped(config, path, 0 if resumed is None else resumed[1].step)
    write_text(path / "config.json", json.dumps(encode_run(config), indent=1))
    keep_tokenizer(path, config.data.directories)
    checkpoint, manifest = resumed or (None, None)
    return RunDirectory(
        path=path,
        data_fingerprint=data_fingerprint,
        checkpoint=checkpoint,
        manifest=manifest,
        origin=origin,
        skipped=skipped,
    )


@contextmanager
def lock(config: RunConfig) -> Iterator[None]:
    """Lock the run's directory: two processes that train in it would delete each other's checkpoints.

    If the start is refused by a ConfigError before anything was recorded, the directory is left as it was.

    Raises:
        ConfigError: another process has locked it.
    """
    path = Path(config.run.dir) / config.run.name
    before, started_at = Before(path), time.time()
    _create(path)
    with _locked(path) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
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
        _locked(path).close()


def _locked(path: Path) -> TextIO:
    try:
        return open_locked(path / "lock")
    except BlockingIOError:
        holder = (path / "lock").read_text(encoding="utf-8").strip()
        raise ConfigError(
            f"run.name: {path} is being trained in by {holder or 'another process'}; wait for it, stop it, or choose "
            "another run.name."
        ) from None


def _has_recorded(path: Path, started_at: float) -> bool:
    """Whether a start has recorded or saved a step."""
    if any(checkpoint.stat().st_mtime >= started_at for checkpoint in store.checkpoints(path / store.FOLDER)):
        return True
    metrics = path / records.FILE_NAME
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    return len(lines) > 1 and json.loads(lines[-1])["time"] >= started_at


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
    if config.resume == "never" and _holds_run(path):
        raise ConfigError(
            f"run.name: {path} already holds a run; resume it with resume=auto, or choose another run.name."
        )


def _check_data(config: RunConfig) -> str:
    """Check the model's vocabulary against the tokenizer's, and return the fingerprint of the data."""
    check_vocabulary(config.data.directories, config.model.vocab_size)
    return data_fingerprint(config.data.directories)


def _find_checkpoint(config: RunConfig, path: Path) -> tuple[Path, Manifest] | None:
    match config.resume:
        case "never":
            return None
        case "auto":
            return mirror.newest(path / store.FOLDER, mirror.mirror_of(config.run))
        case checkpoint:
            _check_branch(Path(checkpoint), path / store.FOLDER)
            return Path(checkpoint), verify(Path(checkpoint))


def _check_branch(checkpoint: Path, own: Path) -> None:
    """Refuse to resume a run from a checkpoint other than its last, which would overwrite the later ones."""
    later = [path for path in store.checkpoints(own) if path.name > checkpoint.name]
    if checkpoint.resolve().parent == own.resolve() and later:
        raise ConfigError(
            f"resume: {checkpoint} is followed by {later[-1].name} in the same run; choose another run.name "
            "to branch off from it, or resume=auto to resume from the last one."
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


def _holds_run(path: Path) -> bool:
    """Whether metrics or a checkpoint were written; a start that failed before its first step has neither."""
    metrics = path / records.FILE_NAME
    has_records = metrics.exists() and len(metrics.read_text(encoding="utf-8").splitlines()) > 1
    return has_records or bool(store.checkpoints(path / store.FOLDER))


def _create(path: Path) -> None:
    """Create the run's directory and check that it can be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run.dir: {path} cannot be created ({error.strerror}); choose another run.dir.") from None
    if not os.access(path, os.W_OK):
        raise ConfigError(f"run.dir: {path} cannot be written to; choose another run.dir.")
