"""Being asked to stop: signals set a flag, and nothing else. No torch."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send before they end a job."""
STARTED_AT = "MYTHOS_STARTED_AT"
"""Environment variable: when the launcher of this rank started, in seconds of the machine's monotonic clock."""


class StopRequest:
    """Whether this process was asked to stop, and since when it runs."""

    def __init__(self) -> None:
        self.is_asked = False
        self.started_at = float(os.environ.get(STARTED_AT, time.monotonic()))

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The handler; a second signal changes nothing."""
        self.is_asked = True

    @property
    def elapsed_seconds(self) -> float:
        """Since the process, or its launcher, started."""
        return time.monotonic() - self.started_at


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Have SIGTERM and SIGUSR1 ask this process to stop."""
    request = StopRequest()
    before = {number: signal.signal(number, request.ask) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
