"""A tracker whose loss costs the run nothing but the tracker."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from mythos.train.trackers.base import Tracker


class Tolerant(Tracker):
    """Passes everything on until the tracker fails, says so once, and goes on without it.

    ``metrics.jsonl`` has every record whatever becomes of a tracker beside it, so no hour of training is worth one of
    its exceptions. Those at its start are not held back: they are mistakes in the configuration.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker
        self.is_lost = False

    @property
    def name(self) -> str:
        return self.tracker.name

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._try(lambda: self.tracker.log_metrics(metrics, step), f"at step {step}")

    def log_arrays(self, arrays: Mapping[str, npt.ArrayLike], step: int) -> None:
        self._try(lambda: self.tracker.log_arrays(arrays, step), f"at step {step}")

    def alert(self, title: str, text: str) -> None:
        self._try(lambda: self.tracker.alert(title, text), "at an alert")

    def end(self, status: str) -> None:
        self._try(lambda: self.tracker.finalize(status), "at its end")

    def _try(self, act: Callable[[], Any], when: str) -> None:
        if self.is_lost:
            return
        try:
            act()
        except Exception as error:  # of any library, and of whatever its connection runs over
            self.is_lost = True
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            print(
                f"mythos: {self.name} was lost {when} ({reason}); the run goes on without it, and metrics.jsonl has "
                "every record.",
                file=sys.stderr,
                flush=True,
            )
