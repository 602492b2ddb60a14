"""Errors of the operating system, such as a full disk or a refused permission, as sentences for the user."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mythos.config.base import ConfigError

_ADVICE: Final = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "raise the largest size of a file (ulimit -f)",
    errno.EACCES: "give this user the permission",
    errno.EPERM: "give this user the permission",
    errno.EROFS: "make the file system writable",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "check the path",
    errno.ELOOP: "replace the link by a file",
}
_OTHER_ADVICE: Final = "check the file system"
_OF_OTHERS: Final = {
    errno.ENOMEM,
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
}
"""Errors of memory and of networks that have no class of their own."""


def is_of_files(error: OSError) -> bool:
    """Whether the operating system refused an access to files; errors of connections and processes are others."""
    others = (ConnectionError, ChildProcessError, ProcessLookupError, BlockingIOError, InterruptedError)
    number = error.errno or 0  # a library's own error has none, that of a name look-up a negative one
    return number > 0 and number not in _OF_OTHERS and not isinstance(error, others)


def sentence(error: OSError, path: Path | str | None = None) -> str:
    """Return what failed and what to do, without a full stop: ``path: the reason; the advice``.

    Args:
        path: what was read or written; None takes the error's own file.
    """
    name = error.filename if path is None else path
    reason = error.strerror or str(error)
    text = reason if name is None else f"{name}: {reason}"
    return f"{text}; {_ADVICE.get(error.errno or 0, _OTHER_ADVICE)}"


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Raise an OSError of the block as a ConfigError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{sentence(error, path)}.") from error
