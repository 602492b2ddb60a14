"""The processes of one job: ``mythos train``, restarted after a restartable status, then the commands after it."""

import dataclasses
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from mythos.config.exit_status import START_AGAIN
from mythos.files import open_regular
from mythos.parallel.parent import die_with_parent
from mythos.report.jobs import LOCK_FILE, read_job, write_record

_COMMAND: tuple[str, ...] = (sys.executable, "-m", "mythos.cli.main")
_GRACE_SECONDS = 120.0
"""Time that a job has to save after it was asked to stop."""
_LAUNCHER_VARIABLES = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "RANK", "WORLD_SIZE", "LOCAL_RANK")
"""Variables of the sweep's own launcher, removed for jobs: with them, a job would act as one of its ranks."""


class Launch(NamedTuple):
    """Everything needed to start a job, on this machine or another one."""

    directory: Path
    overrides: tuple[str, ...]
    """The overrides that distinguish the job from others."""
    arguments: tuple[str, ...]
    """Arguments of ``mythos`` for the training."""
    max_restarts: int
    after: tuple[str, ...] = ()
    """Commands of ``mythos`` to run after the training; ``{run}`` stands for ``directory``."""


class JobProcess:
    """A running job, from its first start until it ends with a status after which it is not restarted."""

    def __init__(self, launch: Launch, environment: dict[str, str] | None = None) -> None:
        """Start the job; its output is appended to ``log.txt`` in its folder.

        Args:
            environment: variables in addition to those of this process.

        Raises:
            BlockingIOError: another process is running the job.
        """
        self.launch = launch
        self._environment = _environment() | (environment or {})
        launch.directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(launch.directory / LOCK_FILE)
        before = read_job(launch.directory).record
        job_id = os.environ.get("SLURM_JOB_ID") if before.slurm_job is not None else None
        self.record = dataclasses.replace(before.renewed(launch.after), overrides=launch.overrides, slurm_job=job_id)
        self._num_restarts = 0
        self._asked_to_stop: float | None = None
        self._start()

    def poll(self) -> bool:
        """Whether the job has ended for good; restarts it after a restartable status, or runs its next command."""
        status = self._process.poll()
        if status is None:
            if self._asked_to_stop is not None and time.monotonic() - self._asked_to_stop > _GRACE_SECONDS:
                self.kill()
            return False
        self._write_end(status if status >= 0 else 128 - status)
        is_restart = self.record.status in START_AGAIN and self._num_restarts < self.launch.max_restarts
        if self.record.stopped is None and (is_restart or self.record.is_open):
            self._num_restarts += is_restart
            self._start()
            return False
        self._lock.close()
        return True

    def stop(self, reason: Literal["by the sweep", "early"]) -> None:
        """Ask the job to save and end; if it does not end in time, a later ``poll`` kills it."""
        if self._asked_to_stop is None:
            self._asked_to_stop = time.monotonic()
            self._write(stopped=reason)
            self._process.terminate()

    def kill(self) -> None:
        """Kill all processes of the job; they have their own session."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self) -> None:
        """Start the training or, once it has finished, the first command that has not ended."""
        self._command = None
        arguments = list(self.launch.arguments)
        if self.record.status == 0:
            self._command = next(command for command, status in self.record.after.items() if status is None)
            arguments = arguments_of(self._command, run=str(self.launch.directory))
        else:
            self._write(status=None, num_starts=self.record.num_starts + 1)
        with open_regular(self.launch.directory / "log.txt", "ab") as log:
            if self._command is not None:
                log.write(f"$ mythos {shlex.join(arguments)}\n".encode())
                log.flush()
            self._process = subprocess.Popen(
                [*_COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                preexec_fn=partial(_prepare_child, os.getpid()),
            )
        self._started = time.monotonic()

    def _write_end(self, status: int) -> None:
        if self._command is None:
            self._write(status=status, seconds=self.record.seconds + time.monotonic() - self._started)
        elif status == 0 or self.record.stopped is None:  # a command that was stopped has not failed
            self._write(after=self.record.after | {self._command: status})

    def _write(self, **changes: Any) -> None:
        self.record = dataclasses.replace(self.record, **changes)
        write_record(self.launch.directory, self.record)


def run_command(arguments: list[str]) -> int:
    """Run a command of ``mythos`` to its end, with the output of this process; returns its exit status."""
    return subprocess.run(
        [*_COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        env=_environment(),
        preexec_fn=partial(_prepare_child, os.getpid()),
        check=False,
    ).returncode


def arguments_of(command: str, runs: Sequence[str] = (), **placeholders: str) -> list[str]:
    """The arguments of a command: ``{runs}`` becomes several arguments, other placeholders are replaced in place.

    An export replaces an earlier one, since the command may be repeated.
    """
    arguments: list[str] = []
    for argument in shlex.split(command):
        for name, value in placeholders.items():
            argument = argument.replace(f"{{{name}}}", value)
        arguments += runs if argument == "{runs}" else [argument]
    return [*arguments, "--replace"] if arguments[0] == "export" else arguments


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _LAUNCHER_VARIABLES}


def _prepare_child(sweep: int) -> None:
    """Die with the sweep's process, which would start the job again; ignore SLURM's warning, which is for it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    die_with_parent(sweep)


def _lock(path: Path) -> IO[bytes]:
    """Lock the job, with retries since readers hold the lock for a moment."""
    file = open_regular(path, "ab")
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.05)
    file.close()
    raise BlockingIOError(f"another process is running {path.parent}")
