"""One job's processes: ``mythos train`` as a child, started again when it asks for it, then the commands after it."""

import ctypes
import dataclasses
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from mythos.config.exit_status import START_AGAIN
from mythos.report.jobs import LOCK_FILE, read_job, write_record

_COMMAND: tuple[str, ...] = (sys.executable, "-m", "mythos.cli.main")
_GRACE_SECONDS = 120.0
"""How long a job that is told to stop may take to save."""
_PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""
_LAUNCHER_VARIABLES = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "RANK", "WORLD_SIZE", "LOCAL_RANK")
"""Of whoever started the sweep: a job that saw them would take itself for one of its ranks."""


class Launch(NamedTuple):
    """All that is needed to start a job, on this machine or another one."""

    directory: Path
    overrides: tuple[str, ...]
    """Those that tell the job from others."""
    arguments: tuple[str, ...]
    """Of ``mythos``, for the training."""
    max_restarts: int
    after: tuple[str, ...] = ()
    """Commands of ``mythos`` once the training has finished; ``{run}`` stands for ``directory``."""


class JobProcess:
    """A job that runs, from its first start to an end for which it is not started again."""

    def __init__(self, launch: Launch, environment: dict[str, str] | None = None) -> None:
        """Start the job; its output is appended to ``log.txt`` in its folder.

        Args:
            environment: variables on top of this process's own.

        Raises:
            BlockingIOError: another process has the job in hand.
        """
        self.launch = launch
        self._environment = _environment() | (environment or {})
        launch.directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(launch.directory / LOCK_FILE)
        before = read_job(launch.directory).record
        number = os.environ.get("SLURM_JOB_ID") if before.slurm_job is not None else None
        self.record = dataclasses.replace(before.renewed(launch.after), overrides=launch.overrides, slurm_job=number)
        self._num_restarts = 0
        self._asked_to_stop: float | None = None
        self._start()

    def poll(self) -> bool:
        """Whether the job has ended for good; starts it again where its status asks for that, or its next command."""
        status = self._process.poll()
        if status is None:
            if self._asked_to_stop is not None and time.monotonic() - self._asked_to_stop > _GRACE_SECONDS:
                self.kill()
            return False
        self._write_end(status if status >= 0 else 128 - status)
        asks_for_it = self.record.status in START_AGAIN and self._num_restarts < self.launch.max_restarts
        if self.record.stopped is None and (asks_for_it or self.record.is_open):
            self._num_restarts += asks_for_it
            self._start()
            return False
        self._lock.close()
        return True

    def stop(self, reason: Literal["by the sweep", "early"]) -> None:
        """Tell the job to save and end; one that does not end in time is killed by a later ``poll``."""
        if self._asked_to_stop is None:
            self._asked_to_stop = time.monotonic()
            self._write(stopped=reason)
            self._process.terminate()

    def kill(self) -> None:
        """End all of the job's processes at once; they are a session of their own."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self) -> None:
        """Start the training or, once it has finished, the first command that is open."""
        self._command = None
        arguments = list(self.launch.arguments)
        if self.record.status == 0:
            self._command = next(command for command, status in self.record.after.items() if status is None)
            arguments = words_of(self._command, run=str(self.launch.directory))
        else:
            self._write(status=None, num_starts=self.record.num_starts + 1)
        with (self.launch.directory / "log.txt").open("ab") as log:
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
                preexec_fn=_prepare_child,
            )
        self._started = time.monotonic()

    def _write_end(self, status: int) -> None:
        if self._command is None:
            self._write(status=status, seconds=self.record.seconds + time.monotonic() - self._started)
        elif status == 0 or self.record.stopped is None:  # one that was cut off has not failed
            self._write(after=self.record.after | {self._command: status})

    def _write(self, **changes: Any) -> None:
        self.record = dataclasses.replace(self.record, **changes)
        write_record(self.launch.directory, self.record)


def run_command(words: list[str]) -> int:
    """Run a command of ``mythos`` to its end, its output on this process's; returns its exit status."""
    return subprocess.run(
        [*_COMMAND, *words], stdin=subprocess.DEVNULL, env=_environment(), preexec_fn=_prepare_child, check=False
    ).returncode


def words_of(command: str, runs: Sequence[str] = (), **places: str) -> list[str]:
    """A command's words, ``{runs}`` among them as several words and each other place inside of its word.

    An export replaces an earlier one, since the command may be repeated.
    """
    words: list[str] = []
    for word in shlex.split(command):
        for name, value in places.items():
            word = word.replace(f"{{{name}}}", value)
        words += runs if word == "{runs}" else [word]
    return [*words, "--replace"] if words[0] == "export" else words


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _LAUNCHER_VARIABLES}


def _prepare_child() -> None:
    """Die with the sweep, which would start the job a second time; SLURM's warning is for the sweep's process alone."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _lock(path: Path) -> IO[bytes]:
    """Hold the job, with patience for one who only looks at the lock."""
    file = path.open("ab")
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.05)
    file.close()
    raise BlockingIOError(f"{path.parent} is in the hands of another process")
