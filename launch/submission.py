"""A submission: the configuration and the code, frozen in a folder of the run's directory."""

import json
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mythos
from mythos.config.base import ConfigError, difference, encode
from mythos.config.load import load
from mythos.config.run import RunConfig
from mythos.files import open_locked, read_regular, remove, replacing, write_text
from mythos.train.code_state import FROZEN, code_state
from mythos.train.refusal import Before

SUBMITTED = "submitted.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One submission: its overrides and directories."""

    overrides: list[str]
    """Overrides of the command line."""
    run: Path
    """The run's directory on the machines of the job."""
    folder: Path
    """The submission's own folder, ``submissions/NNN``."""
    working_directory: Path
    """The folder to which relative paths of the configuration refer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """The command that was run, and shell commands that show and stop the job."""

    command: str
    job: str | None
    """The scheduler's job ID, or process IDs; None if nothing was started."""
    inspect: tuple[str, ...]
    stop: tuple[str, ...]


@contextmanager
def holding(submissions: Path) -> Iterator[None]:
    """Lock a run for one ``submit`` at a time; a submission that is refused leaves nothing behind.

    Raises:
        ConfigError: another process is submitting the run.
    """
    before = Before(submissions)
    try:
        submissions.mkdir(parents=True, exist_ok=True)
        file = open_locked(submissions / "lock")
    except BlockingIOError:
        raise ConfigError(
            f"run.name: {submissions.parent} is being submitted by another process; wait for it, or choose another "
            "run.name."
        ) from None
    except OSError as error:
        raise ConfigError(f"run.dir: {submissions} cannot be written ({error.strerror}); choose another.") from None
    with file:
        try:
            yield
        except ConfigError:
            before.restore()
            raise


def check_code_path(submission: Submission) -> None:
    """Check that the job can find the frozen code, whose folder is an entry of PYTHONPATH.

    Raises:
        ConfigError: the path would be split into several entries.
    """
    if ":" in str(submission.folder):
        raise ConfigError(
            f"run.dir: the frozen code would be in {submission.folder}, which Python would split at the colon in "
            "PYTHONPATH, so the job would run other code; choose a run.dir and a run.name without one."
        )


def folders(submissions: Path) -> list[Path]:
    """The submissions of a run, oldest first."""
    return sorted(path for path in submissions.glob("[0-9][0-9][0-9]*") if path.is_dir())


def next_folder(submissions: Path) -> Path:
    """The folder of the next submission."""
    existing = folders(submissions)
    return submissions / f"{int(existing[-1].name) + 1 if existing else 1:03d}"


def last_job(submissions: Path) -> dict[str, Any] | None:
    """The contents of the newest ``submitted.json``; None without one."""
    for folder in reversed(folders(submissions)):
        if (folder / SUBMITTED).is_file():
            return json.loads(read_regular(folder / SUBMITTED))
    return None


def describe(overrides: list[str]) -> dict[str, Any]:
    """The contents of ``submission.json``: overrides, code version, time and host."""
    commit, changed_files, _ = code_state(Path(mythos.__file__).parents[1])
    return {
        "overrides": overrides,
        "code": {"version": mythos.__version__, "commit": commit, "changed_files": changed_files},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
    }


def configuration(config: RunConfig) -> str:
    """The text of ``train.yaml`` for ``mythos train --config-dir``.

    It is JSON, and YAML too: characters beyond 16 bits, which JSON would escape as two, are escaped as YAML does.
    """
    text = json.dumps(encode(config), indent=1, ensure_ascii=False)
    return re.sub(r"[^\n -~]", lambda found: f"\\U{ord(found[0]):08x}", text) + "\n"


def check_readable(config: RunConfig) -> None:
    """Check that the job will read the same configuration from ``train.yaml``.

    Raises:
        ConfigError: it would not; names what it would read.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.yaml").write_text(configuration(config), encoding="ascii")
        try:
            changes = difference(encode(config), encode(load([], Path(folder))))
        except ConfigError as error:
            changes = str(error).splitlines()
    if changes:
        raise ConfigError(
            "the job would not read this configuration as it is; change these values:\n  " + "\n  ".join(changes)
        )


def freeze(config: RunConfig, submission: Submission, files: dict[str, str], *, with_code: bool) -> None:
    """Write a submission's folder atomically.

    ``with_code`` adds a copy of the package, so that later changes of the checkout do not affect the job.
    """
    with replacing(submission.folder) as temporary:
        temporary.mkdir()
        facts = json.dumps(describe(submission.overrides), indent=1)
        for name, text in {"train.yaml": configuration(config), "submission.json": facts, **files}.items():
            (temporary / name).write_text(text, encoding="utf-8")
        if with_code:
            _copy_code(temporary / "code")


def _copy_code(target: Path) -> None:
    package = Path(mythos.__file__).parent
    commit, changed_files, difference = code_state(package.parent)
    shutil.copytree(package, target / "mythos", ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
    facts = {"commit": commit, "changed_files": changed_files, "difference": difference}
    (target / FROZEN).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def write_submitted(folder: Path, submitted: Submitted) -> None:
    """Write ``submitted.json`` into the submission's folder."""
    facts = {"command": submitted.command, "job": submitted.job, "inspect": submitted.inspect, "stop": submitted.stop}
    write_text(folder / SUBMITTED, json.dumps(facts, indent=1))


def withdraw(folder: Path) -> None:
    """Remove a submission that the scheduler refused."""
    remove(folder)
