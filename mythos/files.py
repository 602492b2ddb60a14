"""Writing so that a reader sees the old content or the new one, never a part."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling to write to; on success it is flushed to disk and takes the place of ``path``.

    Works for a file or a directory (which must not exist yet at ``path``). On an error nothing remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        for written in [temporary, *temporary.rglob("*")]:
            flush(written)
        temporary.replace(path)
        flush(path.parent)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Delete a file or a directory with all it holds; absence is fine."""
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            remove(child)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_aside(directory: Path) -> Path:
    """Hide a directory, if it is there, as ``.<name>.old``, since deleting it may be cut short; returns that path."""
    hidden = directory.with_name(f".{directory.name}.old")
    remove(hidden)
    if directory.exists():
        directory.replace(hidden)
    return hidden


def install(temporary: Path, directory: Path) -> None:
    """Give a finished directory its name, in the place of what had it before."""
    before = set_aside(directory)
    temporary.replace(directory)
    flush(directory.parent)
    remove(before)


def flush(path: Path) -> None:
    """Have a file's content, or a directory's entries, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_below(name: str) -> bool:
    """Whether a relative path that somebody else wrote down stays below the directory that it starts from."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not {"/", "//", ".."} & set(parts) and not {"\0", "\\"} & set(name)


def resolves_below(directory: Path, name: str) -> bool:
    """``is_below``, with links followed; ``directory`` itself may be one."""
    if not is_below(name):
        return False
    path = directory / name
    steps = [path, *path.parents][: len(PurePosixPath(name).parts)]
    if not any(step.is_symlink() for step in steps):  # resolving asks for each part of the whole path
        return True
    return path.resolve().is_relative_to(directory.resolve())


def restrict_umask() -> None:
    """What this process creates from here on is writable to its user only; a stricter umask stays."""
    before = os.umask(0o077)
    os.umask(before | 0o022)
