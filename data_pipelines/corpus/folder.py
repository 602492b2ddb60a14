"""Read a folder of text files, or one file, as documents."""

import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from data_pipelines.skips import Skips
from mythos.config.base import ConfigError
from mythos.data.text import printable_name

SUFFIXES: Final = (".md", ".txt")
"""Suffixes of files that are one document each."""
ROWS: Final = (".jsonl", ".parquet")
"""Suffixes of files that hold a document in each row."""
COMPRESSED: Final = (".gz", ".zst")
CLEANABLE: Final = (".html", ".htm", ".xhtml", ".rst")
"""Suffixes of other text, which ``mythos-data clean`` reads."""
KINDS: Final = "a .txt, .md, .jsonl (also with .gz or .zst) or .parquet file"


class Document(NamedTuple):
    """One text and its name."""

    name: str
    """Path inside the folder, with forward slashes; bytes that are not UTF-8 are escaped. With ``#`` and the index of
    its row if the file holds rows."""
    text: str


def read_folder(directory: Path, skips: Skips | None = None, text_column: str = "text") -> Iterator[Document]:
    """Yield every document below ``directory``, or of one file, sorted by relative path; line ends are not changed.

    Files are read one at a time, and files of rows in batches. Files that are hidden (see ``hidden_entry``), empty or
    not UTF-8 are left out and counted in ``skips``, as are rows without text, and text in other formats.

    Args:
        text_column: name of the column with the text in files of rows.

    Raises:
        ConfigError: the path is missing or holds no text file (raised by the call itself); a file is damaged, or its
            column has no text.
    """
    skips = Skips() if skips is None else skips
    printable = printable_name(str(directory))
    if directory.is_file():
        if kind(directory.name) not in (*SUFFIXES, *ROWS):
            raise ConfigError(f"{printable} is not {KINDS}; name a file or folder of these.")
        return _read(directory.parent, [directory.name], skips, text_column)
    if not directory.is_dir():
        raise ConfigError(
            f"{printable}: no such file or folder; name {KINDS}, a folder of these, or OWNER/NAME on the Hub."
        )
    names, others = _listing(directory, skips)
    if not names and others:
        source = f"{{mine: {{kind: files, dir: {directory}, licence: NAME}}}}"
        raise ConfigError(
            f"{directory} does not hold {KINDS}, but {len(others):,} of other formats "
            f"({printable_name(others[0])}); write 'sources: {source}' into mine.yaml, run mythos-data clean mine.yaml "
            "--to CORPUS, and name CORPUS instead."
        )
    if not names:
        raise ConfigError(f"{printable} does not hold {KINDS}; name a folder that does.")
    for name in others:
        skips.skip("of a format that only mythos-data clean reads", printable_name(name))
    return _read(directory, names, skips, text_column)


def kind(name: str) -> str:
    """Suffix of a file's name in small letters, without that of its compression; empty for compressed parquet."""
    path = PurePath(name.lower())
    if path.suffix not in COMPRESSED:
        return path.suffix
    inner = PurePath(path.stem).suffix
    return "" if inner == ".parquet" else inner


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
        suffix = kind(path.name)
        if suffix not in (*SUFFIXES, *ROWS, *CLEANABLE) or not path.is_file():
            continue
        name = path.relative_to(directory).as_posix()
        if entry := hidden_entry(name):
            hidden.add(entry)
        else:
            (others if suffix in CLEANABLE else names).append(name)
    for entry in sorted(hidden):
        skips.skip("hidden", printable_name(entry))
    return sorted(names), sorted(others)


def _read(directory: Path, names: list[str], skips: Skips, text_column: str) -> Iterator[Document]:
    for name in names:
        path, printable = directory / name, printable_name(name)
        if kind(name) in ROWS:
            # Imported here, since plain text needs none of the libraries for rows.
            from data_pipelines.corpus.row_texts import read_row_texts

            for row in read_row_texts(path, printable, text_column, skips):
                yield Document(row.id, row.text)
        elif text := _read_text(path, printable, skips):
            yield Document(printable, text)


def _read_text(path: Path, name: str, skips: Skips) -> str:
    """Text of one file; empty if it is left out."""
    content = _content(path)
    if not content.strip():
        skips.skip("empty", name)
        return ""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        at = f"byte {content[error.start]:#04x} at offset {error.start}"
        skips.skip("to be converted to UTF-8", f"{name} is not UTF-8: {at}")
        return ""


def _content(path: Path) -> bytes:
    if path.suffix.lower() not in COMPRESSED:
        return path.read_bytes()
    from data_pipelines.corpus.row_texts import damage
    from data_pipelines.corpus.rows import open_compressed

    try:
        with open_compressed(path) as file:
            return file.read()
    except (EOFError, OSError, zlib.error) as error:
        raise damage(printable_name(str(path)), "", error) from None
