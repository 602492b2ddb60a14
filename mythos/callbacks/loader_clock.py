"""Timing of the training loader."""

import time
from collections.abc import Callable

from lightning.pytorch.profilers import Profiler


class LoaderClock(Profiler):
    """Lightning's hook around the training loader, used as a clock."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.clock = clock
        self.asked_at = 0.0
        """Time of the last request for a micro-batch."""
        self.last_seconds = 0.0
        """Duration of the last request."""
        self.seconds = 0.0
        """Total duration of all requests."""

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.asked_at = self.clock()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.last_seconds = self.clock() - self.asked_at
            self.seconds += self.last_seconds
