"""Copies checkpoints to the mirror in a thread that nobody waits for, except the end of the run for a limited time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Thread

from mythos.checkpoint import store
from mythos.checkpoint.mirror import Mirror
from mythos.checkpoint.names import step_of
from mythos.checkpoint.ownership import check_owner
from mythos.config.run import CheckpointConfig


class Copies:
    """The checkpoints that wait for their copy, newest first; each copy has ``copy_timeout_seconds``.

    A checkpoint that the settings no longer keep is not copied. Whatever fails is a warning.

    Args:
        on_copied: called in the thread with the seconds of each complete copy.
    """

    def __init__(
        self, mirror: Mirror, settings: CheckpointConfig, run_id: str | None, on_copied: Callable[[float], None]
    ) -> None:
        self.mirror = mirror
        self.settings = settings
        self.run_id = run_id
        self.on_copied = on_copied
        self._changed = Condition()
        self._waiting: set[Path] = set()
        self._current: Path | None = None
        self._last: Path | None = None
        """Last checkpoint that was copied; the mirror is pruned up to it."""

    def add(self, checkpoint: Path) -> None:
        """Copy a finished checkpoint as soon as the mirror is free."""
        with self._changed:
            self._waiting.add(checkpoint)
            if self._current is None:
                self._begin_next()

    @contextmanager
    def in_use(self) -> Iterator[set[str]]:
        """Yield the names of checkpoints that must not be deleted; no other copy begins in the block."""
        with self._changed:
            yield set() if self._current is None else {self._current.name}

    def unfinished(self) -> list[Path]:
        """Checkpoints whose copies are not complete, oldest first."""
        with self._changed:
            return sorted(self._waiting | ({self._current} if self._current else set()), key=_step)

    def wait(self, seconds: float) -> None:
        """Return when nothing is left to copy, or after ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._current is None, seconds)

    def _begin_next(self) -> None:
        self._waiting = {path for path in self._waiting if path.exists()}
        self._current = max(self._waiting, key=_step, default=None)
        if self._current is not None:
            self._waiting.remove(self._current)
            Thread(target=self._run, args=(self._current,), name="mirror", daemon=True).start()
        self._changed.notify_all()

    def _run(self, checkpoint: Path) -> None:
        begun_at = time.monotonic()
        try:
            self._copy(checkpoint)
            self.on_copied(time.monotonic() - begun_at)
        except Exception as error:  # of any storage library; none may end the run
            store.warn_on_stderr(f"{error} {checkpoint.name} is only in {checkpoint.parent}.")
        with self._changed:
            self._begin_next()

    def _copy(self, checkpoint: Path) -> None:
        with self.mirror.within(self.settings.copy_timeout_seconds):
            check_owner(self.mirror.url, self.mirror.manifests(), self.run_id)
            self.mirror.copy(checkpoint)
            self._last = max(self._last or checkpoint, checkpoint, key=_step)
            self.mirror.prune(self.settings, valid=self._last.name)


def _step(checkpoint: Path) -> int:
    return step_of(checkpoint.name)
