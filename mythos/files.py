"""Atomic writes: a reader sees the old content or the new one, never a part."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write to; on success it is flushed to disk and renamed to ``path``.

    It may become a file or a directory (which must not exist yet at ``path``). An error removes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    remove(temporary)  # of a killed process with this id, or a link that came with the folder
    try:
        yield temporary
        for written in [temporary, *temporary.rglob("*")]:
            flush(written)
        temporary.replace(path)
        flush(path.parent)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Replace the content of a file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_regular(path: Path, mode: str) -> IO[Any]:
    """Open a file as ``open`` does, but only a regular file that is not a link; text is UTF-8.

    Whoever made a folder may have planted links in it, through which other files would be read or truncated.

    Raises:
        OSError: as ``open`` does; or ``path`` is a link, or something else than a regular file.
    """
    encoding = None if "b" in mode else "utf-8"
    return open(path, mode, encoding=encoding, opener=lambda name, flags: open_descriptor(Path(name), flags))


def open_descriptor(path: Path, flags: int) -> int:
    """Open a file as ``os.open`` does, with the conditions of ``open_regular``."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)  # no wait for the writer of a pipe
    except OSError as error:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def read_regular(path: Path) -> bytes:
    """Content of a file, with the conditions of ``open_regular``."""
    with open_regular(path, "rb") as file:
        return file.read()


def remove(path: Path) -> None:
    """Delete a file or a directory with its contents, if it exists."""
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            remove(child)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rename_to_old(directory: Path) -> Path:
    """Rename a directory, if it exists, to ``.<name>.old``, since its deletion may be interrupted; return that path."""
    hidden = directory.with_name(f".{directory.name}.old")
    remove(hidden)
    if os.path.lexists(directory):
        directory.replace(hidden)
    return hidden


def install(temporary: Path, directory: Path) -> None:
    """Rename a finished directory to its final path and delete the directory that was there."""
    old = rename_to_old(directory)
    temporary.replace(directory)
    flush(directory.parent)
    remove(old)


def flush(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_below(name: str) -> bool:
    """Whether an untrusted relative path stays below the directory that it is relative to."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not {"/", "//", ".."} & set(parts) and not {"\0", "\\"} & set(name)


def resolves_below(directory: Path, name: str) -> bool:
    """Whether ``is_below`` holds with links followed; ``directory`` itself may be a link."""
    if not is_below(name):
        return False
    path = directory / name
    steps = [path, *path.parents][: len(PurePosixPath(name).parts)]
    if not any(step.is_symlink() for step in steps):  # resolving would query each part of the whole path
        return True
    try:
        return path.resolve().is_relative_to(directory.resolve())
    except RuntimeError:  # links that lead to each other
        return False


def open_locked(path: Path) -> IO[bytes]:
    """Open a file, which is created if needed, and lock it until it is closed; its holder may remove it.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: see ``open_regular``.
    """
    while True:
        file: IO[bytes] = open_regular(path, "a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file.fileno()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # the process that held the lock has removed the file


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def restrict_umask() -> None:
    """Make what this process creates from now on writable to its user only; a stricter umask stays."""
    before = os.umask(0o077)
    os.umask(before | 0o022)
