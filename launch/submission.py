"""A submission: the configuration and the code, frozen in a folder of the run's directory."""

import fcntl
import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mythos
from mythos.config.base import ConfigError, encode
from mythos.config.run import RunConfig
from mythos.files import remove, replacing, write_text
from mythos.train.code_state import FROZEN, code_state

SUBMITTED = "submitted.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One submission: what was said, and where things lie."""

    overrides: list[str]
    """Of the command line."""
    run: Path
    """The run's directory, as the job sees it."""
    folder: Path
    """The submission's own folder, ``submissions/NNN``."""
    working_directory: Path
    """Where relative paths of the configuration start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """What was done, and what the user can do next, as shell commands."""

    command: str
    job: str | None
    """The scheduler's name for it, or process ids; None when nothing was started."""
    look: tuple[str, ...]
    stop: tuple[str, ...]


@contextmanager
def holding(submissions: Path) -> Iterator[None]:
    """Let one ``submit`` at a time look at a run and add to it.

    Raises:
        ConfigError: another one is at it.
    """
    try:
        submissions.mkdir(parents=True, exist_ok=True)
        file = (submissions / "lock").open("a")
    except OSError as error:
        raise ConfigError(f"run.dir: {submissions} cannot be written ({error.strerror}); choose another.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"run.name: {submissions.parent} is being submitted by another process; wait for it, or choose another "
                "run.name."
            ) from None
        yield


def folders(submissions: Path) -> list[Path]:
    """The submissions of a run, oldest first."""
    return sorted(path for path in submissions.glob("[0-9][0-9][0-9]*") if path.is_dir())


def next_folder(submissions: Path) -> Path:
    """The folder that the next submission takes."""
    existing = folders(submissions)
    return submissions / f"{int(existing[-1].name) + 1 if existing else 1:03d}"


def last_job(submissions: Path) -> dict[str, Any] | None:
    """What the newest submission wrote down about its job."""
    for folder in reversed(folders(submissions)):
        if (folder / SUBMITTED).is_file():
            return json.loads((folder / SUBMITTED).read_text(encoding="utf-8"))
    return None


def describe(overrides: list[str]) -> dict[str, Any]:
    """What is being submitted, from which code, when and where."""
    commit, changed_files, _ = code_state(Path(mythos.__file__).parents[1])
    return {
        "overrides": overrides,
        "code": {"version": mythos.__version__, "commit": commit, "changed_files": changed_files},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
    }


def configuration(config: RunConfig) -> str:
    """``train.yaml`` as ``mythos train --config-dir`` reads it; JSON is YAML."""
    return json.dumps(encode(config), indent=1) + "\n"


def freeze(config: RunConfig, submission: Submission, files: dict[str, str], *, with_code: bool) -> None:
    """Write a submission's folder, whole or not at all.

    ``with_code`` adds a copy of the package: the job runs the code of today, whatever becomes of the checkout.
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


def record(folder: Path, submitted: Submitted) -> None:
    """Keep what was started beside what was frozen."""
    facts = {"command": submitted.command, "job": submitted.job, "look": submitted.look, "stop": submitted.stop}
    write_text(folder / SUBMITTED, json.dumps(facts, indent=1))


def withdraw(folder: Path) -> None:
    """Forget a submission that the scheduler did not take."""
    remove(folder)
