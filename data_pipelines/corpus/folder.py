"""Read a folder of text files as documents."""

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from data_pipelines.skips import Skips
from mythos.config.base import ConfigError
from mythos.data.text import printable_name

SUFFIXES: Final = (".md", ".txt")
CLEANABLE: Final = (".jsonl", ".parquet", ".html", ".htm", ".xhtml", ".rst", ".gz", ".zst")
"""Suffixes of other text, which ``mythos-data clean`` reads."""


class Document(NamedTuple):
    """One text and its path."""

    name: str
    """Path inside the folder, with forward slashes; bytes that are not UTF-8 are escaped."""
    text: str


def read_folder(directory: Path, skips: Skips | None = None) -> Iterator[Document]:
    """Yield every .txt and .md file below ``directory``, sorted by relative path; line ends are not changed.

    Files are read one at a time. Those that are hidden (see ``hidden_entry``), empty or not UTF-8 are left out and
    counted in ``skips``, as is text in other formats.

    Raises:
        ConfigError: the folder is missing or holds no text file; raised by the call itself.
    """
    skips = Skips() if skips is None else skips
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such folder; name a folder of .txt or .md files.")
    names, others = _listing(directory, skips)
    if not names and others:
        source = f"{{mine: {{kind: files, dir: {directory}, licence: NAME}}}}"
        raise ConfigError(
            f"{directory} holds no .txt or .md file, but {len(others):,} of other formats "
            f"({printable_name(others[0])}); write 'sources: {source}' into mine.yaml, run mythos-data clean mine.yaml "
            "--to CORPUS, and name CORPUS instead."
        )
    if not names:
        raise ConfigError(f"{directory} holds no .txt or .md file; name a folder that does.")
    for name in others:
        skips.add("neither .txt nor .md, but readable by mythos-data clean", printable_name(name))
    return _read(directory, names, skips)


def hidden_entry(name: str) -> str | None:
    """First part of a relative path whose name begins with a dot, with the folders before it; None if there is none.

    Such entries (``.git``, ``.ipynb_checkpoints``) hold copies and bookkeeping, not text that somebody collected.
    """
    parts = PurePath(name).parts
    first = next((index for index, part in enumerate(parts) if part.startswith(".") and part != ".."), None)
    return None if first is None else PurePath(*parts[: first + 1]).as_posix()


def _listing(directory: Path, skips: Skips) -> tuple[list[str], list[str]]:
    """Sorted relative paths of the files to read, and of the text in other formats."""
    names: list[str] = []
    others: list[str] = []
    hidden: set[str] = set()
    for path in directory.rglob("*"):
        suffix = path.suffix.lower()
        if suffix not in (*SUFFIXES, *CLEANABLE) or not path.is_file():
            continue
        name = path.relative_to(directory).as_posix()
        if entry := hidden_entry(name):
            hidden.add(entry)
        else:
            (names if suffix in SUFFIXES else others).append(name)
    for entry in sorted(hidden):
        skips.add("hidden", printable_name(entry))
    return sorted(names), sorted(others)


def _read(directory: Path, names: list[str], skips: Skips) -> Iterator[Document]:
    for name in names:
        content = (directory / name).read_bytes()
        printable = printable_name(name)
        if not content.strip():
            skips.add("empty", printable)
            continue
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            at = f"byte {content[error.start]:#04x} at offset {error.start}"
            skips.add("to be converted to UTF-8", f"{printable} is not UTF-8: {at}")
            continue
        yield Document(printable, text)
