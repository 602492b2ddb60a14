"""Data on which a step failed twice: found from what the attempts left behind, left out by the third. No torch.

``<run>/step`` says which step is being taken. It is overwritten in place twice a step and never flushed: what a process
has written lives in the kernel's cache and outlasts it. Only a machine that dies can lose it, and then the failure was
not the data's. ``<run>/failures.json`` is written at starts alone: failures by step, and the steps that are left out.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from mythos.config.base import ConfigError
from mythos.files import remove, write_text

NUM_FAILURES: Final = 2
"""Of one step with the same data, before those data are left out."""
STEP_FILE: Final = "step"
FAILURES_FILE: Final = "failures.json"
_WIDTH: Final = 128
"""Bytes of the step's record, whatever it says, so that one write replaces all of it."""


class Step(NamedTuple):
    """An optimiser step, counted from 1, and the range [start, end) of global sample indices that it trains on."""

    step: int
    start: int
    end: int


class StepRecord:
    """Says which step is being taken."""

    def __init__(self, run: Path) -> None:
        self._descriptor = os.open(run / STEP_FILE, os.O_WRONLY | os.O_CREAT, 0o666)

    def begin(self, step: Step) -> None:
        """The step is being taken."""
        self._write(json.dumps(step))

    def end(self) -> None:
        """No step is being taken."""
        self._write("")

    def _write(self, text: str) -> None:
        os.pwrite(self._descriptor, text.ljust(_WIDTH - 1).encode() + b"\n", 0)


def failed_step(run: Path) -> Step | None:
    """The step amid which the last attempt ended; None if it ended between steps."""
    try:
        return Step(*json.loads((run / STEP_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def poisoned(run: Path, reached: int, setting: str, max_in_a_row: int) -> tuple[Step, ...]:
    """Count how the last attempt ended, and return the steps whose data are to be left out, in order.

    Args:
        reached: step that the run goes on from; failures up to there have been overcome.
        setting: identifies the configuration; failures under another one do not count.
        max_in_a_row: steps of neighbouring data that may be left out.

    Raises:
        ConfigError: data that come right after so many left-out ones have failed as well.
    """
    counts, left_out = _read(run, setting)
    counts = {step: count for step, count in counts.items() if step.step > reached}
    failed = failed_step(run)
    if failed is not None and failed.step > reached:
        counts[failed] = counts.get(failed, 0) + 1
    if max_in_a_row:
        left_out = sorted({*left_out, *(step for step, count in counts.items() if count >= NUM_FAILURES)})
    if failed is not None and failed in left_out and (length := _row(left_out, failed)) > max_in_a_row:
        raise ConfigError(
            f"run.max_poison_skips is {max_in_a_row}, but step {failed.step} has failed {NUM_FAILURES} times on each "
            f"of {length} batches in a row, the last of samples {failed.start} to {failed.end - 1}; the data are not "
            f"the cause: look at the error, and delete {run / FAILURES_FILE} before you go on."
        )
    entry = {"setting": setting, "failures": [[*step, count] for step, count in counts.items()], "left_out": left_out}
    write_text(run / FAILURES_FILE, json.dumps(entry, indent=1))
    remove(run / STEP_FILE)
    return tuple(left_out)


def forget(run: Path) -> None:
    """A run that starts from the beginning has no failures."""
    remove(run / STEP_FILE)
    remove(run / FAILURES_FILE)


def _read(run: Path, setting: str) -> tuple[dict[Step, int], list[Step]]:
    """Failures by step, and the steps that are left out."""
    try:
        entry = json.loads((run / FAILURES_FILE).read_text(encoding="utf-8"))
        left_out = [Step(*step) for step in entry["left_out"]]
        failures = entry["failures"] if entry["setting"] == setting else []
        return {Step(*step): count for *step, count in failures}, left_out
    except FileNotFoundError:
        return {}, []
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{run / FAILURES_FILE}: damaged; delete it to forget which steps have failed.") from None


def _row(steps: Iterable[Step], last: Step) -> int:
    """How many of the steps have data without a gap up to those of ``last``."""
    ends, length, start = {step.end: step.start for step in steps}, 1, last.start
    while start in ends:
        start, length = ends[start], length + 1
    return length
