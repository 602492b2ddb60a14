"""A tracker whose failure does not end the run."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from mythos.train.trackers.base import Tracker


class Tolerant(Tracker):
    """Forwards all calls until the tracker raises, reports that once, and then ignores them.

    ``metrics.jsonl`` has all metrics even if a tracker fails, so its exceptions do not end the run. Those at its
    construction do, because they are mistakes in the configuration.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker
        self.has_failed = False

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
        if self.has_failed:
            return
        try:
            act()
        except Exception as error:  # of any library, or of its connection
            self.has_failed = True
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            print(
                f"mythos: {self.name} failed {when} ({reason}); the run continues without it, and metrics.jsonl has "
                "all metrics.",
                file=sys.stderr,
                flush=True,
            )
