"""Lock a folder while a command writes into it."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mythos.config.base import ConfigError

LOCK: Final = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock the folder, which is created if needed; a killed process loses its lock, whose file may then stay behind.

    Raises:
        ConfigError: another process has locked the folder, or the lock is a link.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    descriptor = _open(path)
    try:
        yield
    finally:
        # Removed while it is locked, so that no other process can have locked this file.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _open(path: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ConfigError(f"{path} is a link; remove it.") from None
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(f"another run is at work in {path.parent}; wait for it or use a new folder.") from None
        except BaseException:
            os.close(descriptor)
            raise
        # The process that held the lock removed the file in the meantime.
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
