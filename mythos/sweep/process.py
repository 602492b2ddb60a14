"""One job's processes: ``mythos train`` as a child, started again when it asks for it."""

import ctypes
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
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
    """Of ``mythos``."""
    max_restarts: int


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
        self._environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER_VARIABLES}
        self._environment |= environment or {}
        launch.directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(launch.directory / LOCK_FILE)
        before = read_job(launch.directory).record
        number = os.environ.get("SLURM_JOB_ID") if before.slurm_job is not None else None
        self.record = dataclasses.replace(before, overrides=launch.overrides, stopped=None, slurm_job=number)
        self._num_restarts = 0
        self._told_to_stop: float | None = None
        self._start()

    def poll(self) -> bool:
        """Whether the job has ended for good; starts it again where its status asks for that."""
        status = self._process.poll()
        if status is None:
            if self._told_to_stop is not None and time.monotonic() - self._told_to_stop > _GRACE_SECONDS:
                self.kill()
            return False
        seconds = self.record.seconds + time.monotonic() - self._started
        self._write(status=status if status >= 0 else 128 - status, seconds=seconds)
        may_start = self.record.stopped is None and self._num_restarts < self.launch.max_restarts
        if self.record.status in START_AGAIN and may_start:
            self._num_restarts += 1
            self._start()
            return False
        self._lock.close()
        return True

    def stop(self, reason: Literal["by the sweep", "early"]) -> None:
        """Tell the job to save and end; one that does not end in time is killed by a later ``poll``."""
        if self._told_to_stop is None:
            self._told_to_stop = time.monotonic()
            self._write(stopped=reason)
            self._process.terminate()

    def kill(self) -> None:
        """End all of the job's processes at once; they are a session of their own."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self) -> None:
        self._write(status=None, num_starts=self.record.num_starts + 1)
        command = [*_COMMAND, *self.launch.arguments]
        with (self.launch.directory / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_prepare_child,
            )
        self._started = time.monotonic()

    def _write(self, **changes: Any) -> None:
        self.record = dataclasses.replace(self.record, **changes)
        write_record(self.launch.directory, self.record)


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
