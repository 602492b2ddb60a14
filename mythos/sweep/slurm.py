"""Jobs on a SLURM cluster, submitted with submitit. They outlive the sweep's process; a new process takes them over."""

import dataclasses
import getpass
import math
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

import submitit

from mythos.config.base import ConfigError
from mythos.config.sweep import SlurmLauncher
from mythos.files import write_text
from mythos.report.jobs import JobRecord, read_job, write_record
from mythos.sweep.plan import PlannedJob
from mythos.sweep.process import JobProcess, Launch

_STOP_FILE = "stop"
"""File in a job's folder that asks the job, on any node, to save and end; contains the reason."""
_POLL_SECONDS = 3.0
"""Time between two queries of SLURM's controller."""
_MAX_TIMEOUTS = 1000
"""Maximum number of times that a job is requeued at its time limit."""


class Supervised:
    """The function that runs inside a SLURM job and supervises the job's processes. submitit pickles it."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._process: JobProcess | None = None

    def __call__(self) -> int | None:
        """Run the job to its end; returns its exit status."""
        stop = self.launch.directory / _STOP_FILE
        self._process = JobProcess(self.launch)
        while not self._process.poll():
            if stop.exists():
                self._process.stop("early")
            time.sleep(0.5)
        return self._process.record.status

    def checkpoint(self) -> Any:
        """Called when SLURM is about to end the job: stop the run, which saves, and requeue what remains."""
        if self._process is not None:
            self._process.stop("by the sweep")
            while not self._process.poll():
                time.sleep(0.1)
            if self._process.record.is_complete:
                return None
        return submitit.helpers.DelayedSubmission(Supervised(self.launch))


class SlurmQueue:
    """Submits jobs and reads their states from their folders and from squeue."""

    def __init__(self, config: SlurmLauncher, max_restarts: int, directory: Path) -> None:
        """Raises ConfigError where there is no SLURM, or where it would write its logs to another folder."""
        if "%" in str(directory):
            raise ConfigError(f"run.dir: {directory} holds %, which SLURM replaces in the names of logs; leave it out.")
        self._config = config
        self._max_restarts = max_restarts
        self._running: dict[str, Path] = {}
        self._last_query = -math.inf
        try:
            self._executor = submitit.SlurmExecutor(directory / "slurm", max_num_timeout=_MAX_TIMEOUTS)
        except RuntimeError:
            raise ConfigError("sweep.launcher.kind is slurm but there is no srun here; use a login node.") from None

    def check(self, jobs: list[PlannedJob]) -> None:
        """Take over the jobs that an earlier process of this sweep submitted and that SLURM still has."""
        queued = _queued()
        for job in jobs:
            if read_job(job.directory).record.slurm_job in queued:
                self._running[job.name] = job.directory

    @property
    def running(self) -> set[str]:
        """Names of the jobs that are queued or running."""
        return set(self._running)

    def has_room(self, job: PlannedJob) -> bool:
        """Whether another job may be submitted."""
        return len(self._running) < self._config.num_parallel

    def start(self, job: PlannedJob) -> None:
        """Submit a job."""
        (job.directory / _STOP_FILE).unlink(missing_ok=True)
        record = read_job(job.directory, job.overrides).record
        self._executor.update_parameters(**self._parameters(job))
        launch = Launch(job.directory, job.overrides, job.arguments, self._max_restarts, job.after)
        try:
            submitted = self._executor.submit(Supervised(launch))
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise ConfigError(f"sweep.launcher: SLURM refused a job ({' '.join(str(error).split())}).") from None
        queued = dataclasses.replace(record.renewed(job.after), slurm_job=submitted.job_id)
        write_record(job.directory, queued)
        self._running[job.name] = job.directory

    def ended(self) -> list[JobRecord]:
        """The jobs that are no longer in SLURM's queue, since the last call."""
        if not self._running or time.monotonic() - self._last_query < _POLL_SECONDS:
            return []
        self._last_query = time.monotonic()
        queued = _queued()
        ended = [name for name, path in self._running.items() if read_job(path).record.slurm_job not in queued]
        return [read_job(self._running.pop(name)).record for name in ended]

    def stop(self, name: str, reason: Literal["by the sweep", "early"]) -> None:
        """Ask a job to save and end."""
        write_text(self._running[name] / _STOP_FILE, reason)

    def close(self) -> str:
        """Leave the jobs to SLURM. Returns a message for the user."""
        return f"{len(self._running)} of its jobs stay in SLURM's queue; the same command takes them over."

    def _parameters(self, job: PlannedJob) -> dict[str, Any]:
        config = self._config
        parameters = {
            "job_name": job.name,
            "time": config.time_minutes,
            "nodes": 1,
            "ntasks_per_node": 1,
            "partition": config.partition,
            "cpus_per_task": config.num_cpus,
            "mem": None if config.memory_gb is None else f"{config.memory_gb}GB",
            "gpus_per_node": job.config.cluster.num_devices if config.has_gpus else None,
            "additional_parameters": config.parameters or None,
            "stderr_to_stdout": True,
        }
        return {name: value for name, value in parameters.items() if value is not None}


def _queued() -> set[str]:
    """IDs of the user's jobs that SLURM has not finished; asks again while its controller does not answer."""
    command = ["squeue", "--noheader", "--user", getpass.getuser(), "--format", "%A %T"]
    while True:
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            lines = [line.split() for line in listed.stdout.splitlines()]
            return {job_id for job_id, state in lines if state not in _ENDED}
        time.sleep(_POLL_SECONDS)


_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
