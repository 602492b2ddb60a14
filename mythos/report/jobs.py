"""Reads a sweep's directory: its jobs and their states.

``sweep.json`` is the frozen plan: ``schema``, ``name``, ``jobs`` (each with ``name``, ``overrides`` and ``config``),
and for a search its ``search`` and the ``config`` that trials start from. Each job's folder is a run directory that
also contains ``job.json``, a ``JobRecord``, and ``job.lock``, which is locked by whoever runs the job's processes.
"""

import dataclasses
import fcntl
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.exit_status import DIVERGED
from mythos.config.schema import check_schema
from mythos.files import open_regular, read_regular, resolves_below, write_text

PLAN_FILE: Final = "sweep.json"
JOB_FILE: Final = "job.json"
LOCK_FILE: Final = "job.lock"
_FAILURES = {2: "refused", DIVERGED: "diverged"}


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """The contents of ``job.json``, written each time the job starts or ends."""

    name: str
    overrides: tuple[str, ...] = ()
    """The overrides that distinguish the job from others."""
    num_starts: int = 0
    seconds: float = 0.0
    """Wall time over all starts that have ended."""
    status: int | None = None
    """Exit status of the last start; None before the first end and while it runs."""
    stopped: Literal["by the sweep", "early"] | None = None
    """Why it was stopped, if it was: the sweep itself was stopped, or the search stopped the trial early."""
    slurm_job: str | None = None
    """SLURM's job ID of the last submission."""
    after: dict[str, int | None] = field(default_factory=dict)
    """Exit status of each command that follows the training, in order; None before it has ended."""

    @property
    def wall_seconds(self) -> float:
        """``seconds`` as tables and pages state it."""
        return round(self.seconds, 1)

    @property
    def is_complete(self) -> bool:
        """Whether the training and all commands have succeeded."""
        return self.status == 0 and all(status == 0 for status in self.after.values())

    @property
    def is_open(self) -> bool:
        """Whether the training or one of the commands has not ended yet."""
        return self.status is None or (self.status == 0 and not self.is_complete and self.failed_command is None)

    @property
    def failed_command(self) -> str | None:
        """The command that failed, with its exit status; None without one."""
        return next((f"{command} failed ({status})" for command, status in self.after.items() if status), None)

    def renewed(self, after: tuple[str, ...]) -> "JobRecord":
        """The record before another start with these commands: keeps what has succeeded and resets the rest."""
        done: dict[str, int | None] = {command: 0 for command, status in self.after.items() if status == 0}
        commands = done | {command: None for command in after if command not in done}
        return dataclasses.replace(self, status=0 if self.status == 0 else None, stopped=None, after=commands)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job and its state."""

    directory: Path
    record: JobRecord
    is_held: bool
    """Whether a process is running the job now."""

    @property
    def state(self) -> str:
        """One of: not started, queued, running, interrupted, finished, stopped, stopped early, refused,
        diverged, failed (status), and finished, but: command failed (status)."""
        record = self.record
        if self.is_held:
            return "running"
        if record.stopped == "early":
            return "stopped early"
        if record.is_open and record.slurm_job is not None:
            return "queued"
        match record.status:
            case None:
                return "interrupted" if record.num_starts else "not started"
            case 0 if record.is_open:
                return "stopped" if record.stopped else "interrupted"
            case 0:
                return "finished" if record.is_complete else f"finished, but: {record.failed_command}"
            case status:
                return "stopped" if record.stopped else _FAILURES.get(status, f"failed ({status})")


def is_sweep(directory: Path) -> bool:
    """Whether ``mythos sweep`` made this directory."""
    return (directory / PLAN_FILE).is_file()


def read_plan(directory: Path) -> dict[str, Any]:
    """The frozen plan.

    Raises:
        ConfigError: the directory is not a sweep, or is of another version.
    """
    try:
        plan = json.loads(read_regular(directory / PLAN_FILE))
    except (OSError, ValueError):
        raise ConfigError(
            f"{directory}: not a sweep, because it has no valid {PLAN_FILE}; give the folder of a sweep."
        ) from None
    check_schema(str(directory / PLAN_FILE), plan.get("schema"), "use the version that started the sweep")
    return plan


def read_jobs(directory: Path) -> list[Job]:
    """All jobs of the plan in its order, then the trials that a search has started.

    Raises:
        ConfigError: the directory is not a sweep, is of another version, or its plan names jobs outside of it.
    """
    planned = {job["name"]: tuple(job["overrides"]) for job in read_plan(directory)["jobs"]}
    for name in planned:
        if not resolves_below(directory, name):
            raise ConfigError(f"{directory / PLAN_FILE}: names the job {name!r}, which is not in the sweep's folder.")
    started = sorted(path.parent.name for path in directory.glob(f"*/{JOB_FILE}"))
    names = [*planned, *(name for name in started if name not in planned)]
    return [read_job(directory / name, planned.get(name, ())) for name in names]


def read_job(directory: Path, overrides: tuple[str, ...] = ()) -> Job:
    """Read one job; ``overrides`` apply if it has not been started."""
    try:
        raw = json.loads(read_regular(directory / JOB_FILE))
        record = JobRecord(**(raw | {"overrides": tuple(raw["overrides"])}))
    except OSError:
        record = JobRecord(name=directory.name, overrides=overrides)
    return Job(directory=directory, record=record, is_held=_is_held(directory / LOCK_FILE))


def has_metrics(job: Job) -> bool:
    """Whether the job's run has written metrics, so that it can be shown."""
    path = job.directory / records.FILE_NAME
    return path.is_file() and path.read_bytes().count(b"\n") > 1


def write_record(directory: Path, record: JobRecord) -> None:
    """Replace ``job.json``."""
    write_text(directory / JOB_FILE, json.dumps(dataclasses.asdict(record), indent=1))


def _is_held(lock: Path) -> bool:
    try:
        with open_regular(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True
