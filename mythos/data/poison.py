"""Detect data on which a step failed twice, and skip them at the third attempt. No torch.

``<run>/step`` names the step that is running. It is overwritten in place twice a step and never flushed: what a
process has written stays in the kernel's cache after it dies. An attempt that ends within a step was usually killed
from outside, which is no failure of the data. So a failure counts only if somebody who outlived the step has written
``<run>/failed-step``: the rank whose step raised an exception, the watchdog of a stalled rank, or the launcher of a
rank that crashed. ``<run>/failures.json`` is written only at starts: failures by step, and the skipped steps.
"""

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from mythos.config.base import ConfigError
from mythos.config.os_errors import explained
from mythos.files import open_descriptor, read_regular, remove, write_text

NUM_FAILURES: Final = 2
"""Failures of one step with the same data after which those data are skipped."""
STEP_FILE: Final = "step"
FAILED_FILE: Final = "failed-step"
FAILURES_FILE: Final = "failures.json"
_WIDTH: Final = 128
"""Fixed size of the step's record in bytes, so that one write replaces all of it."""


class Step(NamedTuple):
    """An optimiser step, counted from 1, and the range [start, end) of global sample indices that it trains on."""

    step: int
    start: int
    end: int


class StepRecord:
    """Records in ``<run>/step`` which step is running."""

    def __init__(self, run: Path) -> None:
        self._path = run / STEP_FILE
        with explained(self._path):
            self._descriptor = open_descriptor(self._path, os.O_WRONLY | os.O_CREAT)

    def begin(self, step: Step) -> None:
        """Record that ``step`` is running."""
        self._write(json.dumps(step))

    def end(self) -> None:
        """Record that no step is running."""
        self._write("")

    def _write(self, text: str) -> None:
        with explained(self._path):
            os.pwrite(self._descriptor, text.ljust(_WIDTH - 1).encode() + b"\n", 0)


def failed_step(run: Path) -> Step | None:
    """Return the step during which the last attempt ended; None if it ended between steps."""
    try:
        return Step(*json.loads(read_regular(run / STEP_FILE)))
    except (OSError, ValueError, TypeError):
        return None


def mark_failure(run: Path, step: Step | None = None) -> None:
    """Record for the next start that the running step, or ``step``, has failed; an attempt has one failure at most."""
    step = step or failed_step(run)
    if step is not None and not (run / FAILED_FILE).exists():
        write_text(run / FAILED_FILE, json.dumps({"id": uuid.uuid4().hex, "step": step}))


class Witness:
    """Marks the failure of an attempt that cannot do so itself. Create it before the attempt's first step."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._before = self._changed_at()

    @property
    def has_failure(self) -> bool:
        """Whether the attempt is, or has ended, within a step; a record of an earlier attempt is none of it."""
        return self._changed_at() != self._before and failed_step(self._run) is not None

    def mark(self) -> None:
        """Record the failure of the step in which the attempt is, or has ended, if any."""
        if self.has_failure:
            mark_failure(self._run)

    def _changed_at(self) -> int | None:
        try:
            return (self._run / STEP_FILE).stat().st_mtime_ns
        except OSError:
            return None


def poisoned(run: Path, reached: int, setting: str, max_in_a_row: int) -> tuple[Step, ...]:
    """Count the failure of the last attempt, if one is marked, and return the steps whose data are skipped, in order.

    A start that is killed anywhere in this function counts the failure once: its id is written with the counts.

    Args:
        reached: step that the run resumes from; failures up to this step have been overcome.
        setting: identifies the configuration; failures under another one do not count.
        max_in_a_row: largest number of steps with consecutive data that may be skipped.

    Raises:
        ConfigError: more than ``max_in_a_row`` steps with consecutive data have failed.
    """
    counts, left_out, counted = _read(run, setting)
    counts = {step: count for step, count in counts.items() if step.step > reached}
    failure, failed = _marked(run)
    if failed is not None and failed.step > reached and failure != counted:
        counts[failed] = counts.get(failed, 0) + 1
    if max_in_a_row:
        left_out = sorted({*left_out, *(step for step, count in counts.items() if count >= NUM_FAILURES)})
    if failed is not None and failed in left_out and (length := _num_consecutive(left_out, failed)) > max_in_a_row:
        raise ConfigError(
            f"run.max_poison_skips is {max_in_a_row}, but step {failed.step} has failed {NUM_FAILURES} times on each "
            f"of {length} batches in a row, the last of samples {failed.start} to {failed.end - 1}; the data are not "
            f"the cause: look at the error, and delete {run / FAILURES_FILE} before you resume."
        )
    failures = [[*step, count] for step, count in counts.items()]
    entry = {"setting": setting, "failures": failures, "left_out": left_out, "counted": failure or counted}
    with explained(run / FAILURES_FILE):
        write_text(run / FAILURES_FILE, json.dumps(entry, indent=1))
    for path in (run / FAILED_FILE, run / STEP_FILE):
        with explained(path):
            remove(path)
    return tuple(left_out)


def forget(run: Path) -> None:
    """Delete all files; a run that starts from the beginning has no failures."""
    for path in (run / STEP_FILE, run / FAILED_FILE, run / FAILURES_FILE):
        with explained(path):
            remove(path)


def _marked(run: Path) -> tuple[str | None, Step | None]:
    """Read id and step of the failure that the last attempt has marked; None without one."""
    try:
        entry = json.loads(read_regular(run / FAILED_FILE))
        return entry["id"], Step(*entry["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def _read(run: Path, setting: str) -> tuple[dict[Step, int], list[Step], str | None]:
    """Read the number of failures by step, the skipped steps, and the id of the failure that was counted last."""
    with explained(run / FAILURES_FILE):
        try:
            text = read_regular(run / FAILURES_FILE)
        except FileNotFoundError:
            return {}, [], None
    try:
        entry = json.loads(text)
        left_out = [Step(*step) for step in entry["left_out"]]
        failures = entry["failures"] if entry["setting"] == setting else []
        return {Step(*step): count for *step, count in failures}, left_out, entry.get("counted")
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{run / FAILURES_FILE}: damaged; delete it to forget which steps have failed.") from None


def _num_consecutive(steps: Iterable[Step], last: Step) -> int:
    """Count the steps whose data are consecutive and end with those of ``last``."""
    ends, length, start = {step.end: step.start for step in steps}, 1, last.start
    while start in ends:
        start, length = ends[start], length + 1
    return length
