"""Lock a folder while a command writes into it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mythos.config.base import ConfigError
from mythos.files import open_locked

LOCK: Final = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock the folder, which is created if needed; a killed process loses its lock, whose file may then stay behind.

    Raises:
        ConfigError: another process has locked the folder, or the lock is a link.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    try:
        file = open_locked(path)
    except BlockingIOError:
        raise ConfigError(f"another run is at work in {directory}; wait for it or use a new folder.") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(f"{path} is a link; remove it.") from None
        raise
    with file:
        try:
            yield
        finally:
            # Removed while it is locked, so that no other process can have locked this file.
            path.unlink(missing_ok=True)
