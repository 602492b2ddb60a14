"""Run saves in a thread while the training continues."""

from collections.abc import Callable
from threading import Thread


class BackgroundWriter:
    """Runs one function at a time in a thread that dies with the process."""

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def submit(self, function: Callable[[], object]) -> None:
        """Start ``function`` when the previous one has ended.

        Raises:
            BaseException: the error of the previous function; ``function`` is not started then.
        """
        self.wait()
        self._thread = Thread(target=self._run, args=(function,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last function has ended; raise its error, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            self._error = error
