"""The main loop of a sweep: start jobs while there is room, collect those that have ended, until none is left."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from mythos.config.exit_status import DIVERGED, MEANING
from mythos.report.jobs import JobRecord, read_job, write_record
from mythos.sweep.plan import PlannedJob, SweepPlan

_POLL_SECONDS = 0.5


class Queue(Protocol):
    """Starts jobs: ``LocalQueue`` or ``SlurmQueue``."""

    @property
    def running(self) -> set[str]: ...
    def check(self, jobs: list[PlannedJob]) -> None: ...
    def has_room(self, job: PlannedJob) -> bool: ...
    def start(self, job: PlannedJob) -> None: ...
    def ended(self) -> list[JobRecord]: ...
    def stop(self, name: str, reason: Literal["by the sweep", "early"]) -> None: ...
    def close(self) -> str: ...


class Source(Protocol):
    """Provides the jobs: ``ListedJobs`` or a search."""

    def next(self) -> PlannedJob | None:
        """The next job, or None while there is none."""
        ...

    def watch(self, queue: Queue) -> None:
        """Examine the running jobs, and stop those that early stopping gives up."""
        ...

    def ended(self, record: JobRecord) -> bool:
        """Take note that a job has ended; returns whether it will be started again."""
        ...


class ListedJobs:
    """The jobs of a plan that have not ended yet, in order."""

    def __init__(self, plan: SweepPlan, running: set[str]) -> None:
        waiting = [job for job in plan.jobs if job.name not in running]
        for job in waiting:
            _update_commands(job)
        self._remaining = [job for job in waiting if not _is_over(job)]
        self._by_name = {job.name: job for job in plan.jobs}
        self._num_restarts = dict.fromkeys(self._by_name, plan.sweep.max_restarts)

    def next(self) -> PlannedJob | None:
        """The next job, or None."""
        return self._remaining.pop(0) if self._remaining else None

    def watch(self, queue: Queue) -> None:
        """Do nothing: every job runs to its end."""

    def ended(self, record: JobRecord) -> bool:
        """Restart a job that was lost, for instance with its node, or was submitted before a command was added."""
        job = self._by_name[record.name]
        lacks_command = record.status == 0 and not record.after.keys() >= set(job.after)
        restarts = (was_lost(record) or lacks_command) and self._num_restarts[record.name] > 0
        if restarts:
            self._num_restarts[record.name] -= 1
            self._remaining.append(job)
        return restarts


def drive(source: Source, queue: Queue) -> None:
    """Run all jobs; the failure of one does not keep the others from running.

    Raises:
        KeyboardInterrupt: by Ctrl-C or SIGTERM, after ``queue.close``.
    """
    waiting = source.next()
    with _sigterm_as_interrupt():
        try:
            while waiting is not None or queue.running:
                while waiting is not None and queue.has_room(waiting):
                    queue.start(waiting)
                    print_progress(f"{waiting.name}: started")
                    waiting = source.next()
                for record in queue.ended():
                    again = "; it will be started again" if source.ended(record) else ""
                    print_progress(f"{record.name}: {_describe_end(record)}{again}")
                source.watch(queue)
                waiting = source.next() if waiting is None else waiting
                time.sleep(_POLL_SECONDS)
        except BaseException:
            print_progress(queue.close())
            raise


def was_lost(record: JobRecord) -> bool:
    """Whether a job ended without a status: its machine failed, or it was preempted."""
    return record.is_open or (record.stopped == "by the sweep" and not record.is_complete)


def _update_commands(job: PlannedJob) -> None:
    """Update the commands in the record of a finished training to those of the plan."""
    record = read_job(job.directory).record
    if record.status == 0 and record != (renewed := record.renewed(job.after)):
        write_record(job.directory, renewed)


def _is_over(job: PlannedJob) -> bool:
    """Whether the job has finished with all its commands, or has diverged, which it would do again."""
    record = read_job(job.directory).record
    return record.is_complete or record.status == DIVERGED


def _describe_end(record: JobRecord) -> str:
    if record.is_complete:
        return "finished"
    if record.stopped == "early":
        return "stopped early"
    if record.is_open:
        return "lost without a status"
    if record.status == 0:
        return f"finished, but: {record.failed_command}, see log.txt in its folder"
    meaning = f" ({MEANING[record.status]})" if record.status in MEANING else ""
    return f"ended with status {record.status}{meaning}, see log.txt in its folder"


def print_progress(sentence: str) -> None:
    """Print one line about the sweep's progress to stderr."""
    print(f"sweep: {sentence}", file=sys.stderr, flush=True)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that the sweep ends in order when a scheduler ends its process."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
