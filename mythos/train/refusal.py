"""What a refused start has written is removed, so that it leaves nothing behind. No torch."""

from pathlib import Path

from mythos.files import remove, replacing


class Before:
    """The entries of a directory before a start, two levels deep, and the contents of its files at the top."""

    _MAX_BYTES = 2**20
    """Larger files at the top, such as records, are only appended to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._missing = [path for path in (directory, *directory.parents) if not path.exists()]
        self._entries = set(_entries(directory))
        files = [path for path in self._entries if path.parent == directory and path.is_file()]
        self._contents = {path: path.read_bytes() for path in files if path.stat().st_size <= self._MAX_BYTES}

    def restore(self) -> None:
        """Remove what is new, also the directories above that were missing, and restore files that have changed."""
        for path in _entries(self._directory):
            if path not in self._entries:
                remove(path)
        for path, content in self._contents.items():
            if not path.is_file() or path.read_bytes() != content:
                with replacing(path) as temporary:
                    temporary.write_bytes(content)
        for path in self._missing:
            try:
                path.rmdir()
            except OSError:  # somebody else uses it
                return


def _entries(directory: Path) -> list[Path]:
    return [path for pattern in ("*", "*/*") for path in directory.glob(pattern)]
