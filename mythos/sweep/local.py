"""Jobs on this machine, each with its own devices."""

import os
import shutil
import subprocess
import time
from typing import Literal

from mythos.config.base import ConfigError
from mythos.config.sweep import LocalLauncher
from mythos.report.jobs import JobRecord
from mythos.sweep.plan import PlannedJob
from mythos.sweep.process import JobProcess, Launch

_POLL_SECONDS = 0.1


class LocalQueue:
    """Starts jobs while there is room, and stops them when the sweep is interrupted."""

    def __init__(self, config: LocalLauncher, max_restarts: int) -> None:
        self._max_restarts = max_restarts
        self._free = visible_devices()
        self._has_devices = bool(self._free)
        self._num_parallel = config.num_parallel or max(len(self._free), 1)
        self._running: dict[str, tuple[JobProcess, list[str]]] = {}

    def check(self, jobs: list[PlannedJob]) -> None:
        """Refuse jobs for which this machine does not have enough devices.

        Raises:
            ConfigError: one line for each such job.
        """
        lines = [
            f"job {job.name}: cluster.num_devices is {self._num_needed(job)} but this machine shows "
            f"{len(self._free)} devices; lower it, or set parallel.device=cpu."
            for job in jobs
            if self._has_devices and self._num_needed(job) > len(self._free)
        ]
        if lines:
            raise ConfigError("\n".join(lines))

    @property
    def running(self) -> set[str]:
        """Names of the running jobs."""
        return set(self._running)

    def has_room(self, job: PlannedJob) -> bool:
        """Whether the job can start now."""
        return len(self._running) < self._num_parallel and self._num_needed(job) <= len(self._free)

    def start(self, job: PlannedJob) -> None:
        """Start a job for which there is room."""
        taken = [self._free.pop(0) for _ in range(self._num_needed(job))]
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(taken)} if taken else {}
        launch = Launch(job.directory, job.overrides, job.arguments, self._max_restarts, job.after)
        try:
            self._running[job.name] = JobProcess(launch, environment), taken
        except BlockingIOError as error:
            raise ConfigError(f"job {job.name}: {error}; wait for it or end it.") from None

    def ended(self) -> list[JobRecord]:
        """The jobs that have ended since the last call."""
        records = []
        for name, (process, taken) in list(self._running.items()):
            if process.poll():
                del self._running[name]
                self._free += taken
                records.append(process.record)
        return records

    def stop(self, name: str, reason: Literal["by the sweep", "early"]) -> None:
        """Ask a job to save and end; ``ended`` returns it when it has."""
        self._running[name][0].stop(reason)

    def close(self) -> str:
        """Stop all jobs and wait until they have saved; a second Ctrl-C kills them. Returns a message for the user."""
        try:
            for name in self.running:
                self.stop(name, "by the sweep")
            while self._running:
                self.ended()
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            for process, _ in self._running.values():
                process.kill()
            while self._running:
                self.ended()
                time.sleep(_POLL_SECONDS)
        return "its jobs have ended; the same command resumes them."

    def _num_needed(self, job: PlannedJob) -> int:
        is_cpu = job.config.parallel.device == "cpu" or not self._has_devices
        return 0 if is_cpu else job.config.cluster.num_devices


def visible_devices() -> list[str]:
    """The devices in ``CUDA_VISIBLE_DEVICES``, or the indices of all GPUs of this machine; empty without any."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    num_devices = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(index) for index in range(num_devices)]
