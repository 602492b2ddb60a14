"""The loop of a sweep: start what there is room for, hear what has ended, until nothing is left."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from mythos.config.exit_status import DIVERGED, MEANING
from mythos.report.jobs import JobRecord, read_job, write_record
from mythos.sweep.plan import Plan, PlannedJob

_POLL_SECONDS = 0.5


class Queue(Protocol):
    """What starts jobs: ``LocalQueue`` or ``SlurmQueue``."""

    @property
    def running(self) -> set[str]: ...
    def check(self, jobs: list[PlannedJob]) -> None: ...
    def has_room(self, job: PlannedJob) -> bool: ...
    def start(self, job: PlannedJob) -> None: ...
    def ended(self) -> list[JobRecord]: ...
    def stop(self, name: str, reason: Literal["by the sweep", "early"]) -> None: ...
    def close(self) -> str: ...


class Source(Protocol):
    """What says which jobs there are: ``Listed`` or a search."""

    def next(self) -> PlannedJob | None:
        """The next job, or None while there is none."""
        ...

    def watch(self, queue: Queue) -> None:
        """Look at the running jobs, and stop those that are not worth their end."""
        ...

    def ended(self, record: JobRecord) -> bool:
        """Hear that a job has ended; returns whether it will be started again."""
        ...


class Listed:
    """The jobs of a plan that are not yet at an end, in order."""

    def __init__(self, plan: Plan, running: set[str]) -> None:
        waiting = [job for job in plan.jobs if job.name not in running]
        for job in waiting:
            _take_commands(job)
        self._left = [job for job in waiting if not _is_over(job)]
        self._by_name = {job.name: job for job in plan.jobs}
        self._num_restarts = dict.fromkeys(self._by_name, plan.sweep.max_restarts)

    def next(self) -> PlannedJob | None:
        """The next job, or None."""
        return self._left.pop(0) if self._left else None

    def watch(self, queue: Queue) -> None:
        """Every job runs to its end."""

    def ended(self, record: JobRecord) -> bool:
        """Start a job again that was lost, for instance with its node, or was submitted before a command was added."""
        job = self._by_name[record.name]
        is_short = record.status == 0 and not record.after.keys() >= set(job.after)
        goes_on = (was_lost(record) or is_short) and self._num_restarts[record.name] > 0
        if goes_on:
            self._num_restarts[record.name] -= 1
            self._left.append(job)
        return goes_on


def drive(source: Source, queue: Queue) -> None:
    """Run all jobs; one that fails does not keep the others from running.

    Raises:
        KeyboardInterrupt: by Ctrl-C or SIGTERM; the jobs have been told.
    """
    waiting = source.next()
    with _sigterm_as_interrupt():
        try:
            while waiting is not None or queue.running:
                while waiting is not None and queue.has_room(waiting):
                    queue.start(waiting)
                    say(f"{waiting.name}: started")
                    waiting = source.next()
                for record in queue.ended():
                    again = "; it will be started again" if source.ended(record) else ""
                    say(f"{record.name}: {_end_in_words(record)}{again}")
                source.watch(queue)
                waiting = source.next() if waiting is None else waiting
                time.sleep(_POLL_SECONDS)
        except BaseException:
            say(queue.close())
            raise


def was_lost(record: JobRecord) -> bool:
    """Whether a job went without a status: its machine failed, or it was preempted."""
    return record.is_open or (record.stopped == "by the sweep" and not record.is_complete)


def _take_commands(job: PlannedJob) -> None:
    """Have the record of a finished training name the commands that the plan has now, more or fewer than before."""
    record = read_job(job.directory).record
    if record.status == 0 and record != (renewed := record.renewed(job.after)):
        write_record(job.directory, renewed)


def _is_over(job: PlannedJob) -> bool:
    """Finished with all its commands, or diverged, which it would do again."""
    record = read_job(job.directory).record
    return record.is_complete or record.status == DIVERGED


def _end_in_words(record: JobRecord) -> str:
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


def say(sentence: str) -> None:
    """One line about the sweep's progress."""
    print(f"sweep: {sentence}", file=sys.stderr, flush=True)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """An orderly end when a scheduler ends the sweep's process."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
