"""Requests to stop: signals set a flag and do nothing else. No torch."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that schedulers send before they end a job. Ctrl-C, SIGINT, asks for the same."""
STARTED_AT = "MYTHOS_STARTED_AT"
"""Environment variable: when the launcher of this rank started, in seconds of the machine's monotonic clock."""


_STDERR = 2
_INTERRUPTED = (
    b"\nmythos: interrupted; the run finishes its step, saves and ends. A second Ctrl-C ends it at once and loses the "
    b"steps since its last checkpoint.\n"
)


class StopRequest:
    """Whether this process was asked to stop, and when it started."""

    def __init__(self) -> None:
        self.is_asked = False
        self.num_suspensions = 0
        """How often the process was continued after a suspension."""
        self.started_at = float(os.environ.get(STARTED_AT, time.monotonic()))

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; a second one changes nothing."""
        self.is_asked = True

    def count_suspension(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGCONT: a time that was measured meanwhile is longer than the process needed."""
        self.num_suspensions += 1

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the process, or its launcher, started."""
        return time.monotonic() - self.started_at


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Handle SIGTERM, SIGUSR1 and the first SIGINT as requests to stop; a second SIGINT acts as before this call."""
    request, second = StopRequest(), signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, second)
        print_interrupted()
        request.ask(number, frame)

    with (
        handled(STOP_SIGNALS, request.ask),
        handled((signal.SIGINT,), interrupt),
        handled((signal.SIGCONT,), request.count_suspension),
    ):
        yield request


@contextmanager
def sudden_interrupts() -> Iterator[None]:
    """Let SIGINT kill the process, as it does by default outside of Python: an exception would wait for a save."""
    if signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        yield
        return
    with handled((signal.SIGINT,), signal.SIG_DFL):
        yield


@contextmanager
def handled(numbers: Iterable[int], handler: Any) -> Iterator[None]:
    """Handle signals, except a SIGINT that is ignored, as it is in the background jobs of a shell."""
    before = {number: signal.getsignal(number) for number in numbers}
    if before.get(signal.SIGINT) == signal.SIG_IGN:
        del before[signal.SIGINT]
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def print_interrupted() -> None:
    """Tell the user what the first Ctrl-C does, from the handler of the signal, which must not use ``sys.stderr``."""
    if os.environ.get("RANK", "0") == "0":
        os.write(_STDERR, _INTERRUPTED)
