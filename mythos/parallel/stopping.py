"""Requests to stop: signals set a flag and do nothing else. No torch."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that schedulers send before they end a job."""
STARTED_AT = "MYTHOS_STARTED_AT"
"""Environment variable: when the launcher of this rank started, in seconds of the machine's monotonic clock."""


class StopRequest:
    """Whether this process was asked to stop, and when it started."""

    def __init__(self) -> None:
        self.is_asked = False
        self.started_at = float(os.environ.get(STARTED_AT, time.monotonic()))

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; a second one changes nothing."""
        self.is_asked = True

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the process, or its launcher, started."""
        return time.monotonic() - self.started_at


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Handle SIGTERM and SIGUSR1 as requests to stop."""
    request = StopRequest()
    before = {number: signal.signal(number, request.ask) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
