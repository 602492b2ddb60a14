"""Calls that may never return: whoever waits for one has a deadline."""

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

T = TypeVar("T")

_POLL_SECONDS: Final = 0.1


class Overdue(Exception):
    """The call has not returned in time."""


class Stopped(Exception):
    """The process was asked to stop while it waited."""


def within(seconds: float, function: Callable[[], T], is_stopped: Callable[[], bool] = lambda: False) -> T:
    """Call ``function`` in a thread and return what it returns, or raise what it raises.

    A thread cannot be ended. One that is overdue is left behind, and dies with the process.

    Raises:
        Overdue: it has not returned after ``seconds``.
        Stopped: ``is_stopped`` has returned True meanwhile.
    """
    results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            results.put((function(), None))
        except BaseException as error:
            results.put((None, error))

    Thread(target=run, name="bounded call", daemon=True).start()
    deadline = time.monotonic() + seconds
    while True:
        try:
            value, error = results.get(timeout=max(0.0, min(_POLL_SECONDS, deadline - time.monotonic())))
        except Empty:
            if is_stopped():
                raise Stopped from None
            if time.monotonic() >= deadline:
                raise Overdue from None
            continue
        if error is not None:
            raise error
        return value
