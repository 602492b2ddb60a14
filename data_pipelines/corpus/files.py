"""Read records from files on disk; what cannot be read is counted, named and skipped."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow
import pyarrow.parquet
from charset_normalizer import from_bytes

from data_pipelines.corpus.folder import hidden_entry
from data_pipelines.corpus.html import html_to_text
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.rows import Row, open_compressed, read_batch, read_json_lines
from mythos.data.text import printable_name

TEXT: Final = (".txt", ".text", ".md", ".markdown", ".rst", ".pod", ".dict")
HTML: Final = (".html", ".htm", ".xhtml")
ROWS: Final = (".jsonl", ".parquet")
_COMPRESSED: Final = (".gz", ".dz", ".zst")


def is_readable(path: Path) -> bool:
    """Whether ``read_file`` supports the suffix of the name."""
    return _kind(path) in (*TEXT, *HTML, *ROWS)


def read_file(path: Path, name: str, text_column: str, ledger: Ledger) -> Iterator[Row]:
    """Yield the records of one file; their ids are ``name`` and their index in the file.

    A damaged file yields the records before the damage. Empty files, files that are not text, lines that are not
    JSON objects and rows that cannot be decoded are skipped and counted.

    Raises:
        FileNotFoundError: the file does not exist any more.
    """
    kind, name = _kind(path), printable_name(name)
    try:
        if kind == ".parquet":
            yield from _read_parquet(path, name, ledger)
        elif kind == ".jsonl":
            with open_compressed(path) as file:
                yield from read_json_lines(file, name, ledger)
        elif text := _read_text(path, name, ledger, is_html=kind in HTML):
            yield Row(name, {text_column: text})
    except (pyarrow.ArrowException, UnicodeDecodeError):
        ledger.skip("damaged parquet", name)
    except (EOFError, OSError, zlib.error) as error:
        # An error with errno comes from the system, not from the content of the file.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        ledger.skip("damaged compression", name)


def without_hidden(paths: list[Path], directory: Path, name: str, ledger: Ledger) -> list[Path]:
    """Return the paths of which no part below ``directory`` is hidden; count and name the hidden entries."""
    entries = {path: hidden_entry(path.relative_to(directory).as_posix()) for path in paths}
    for entry in sorted(filter(None, set(entries.values()))):
        ledger.skip("hidden", f"{name}/{printable_name(entry)}")
    return [path for path, entry in entries.items() if entry is None]


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _read_parquet(path: Path, name: str, ledger: Ledger) -> Iterator[Row]:
    number = 0
    with path.open("rb") as content, pyarrow.parquet.ParquetFile(content) as file:
        for batch in file.iter_batches(batch_size=64):
            yield from read_batch(batch, name, number, ledger)
            number += batch.num_rows


def _read_text(path: Path, name: str, ledger: Ledger, *, is_html: bool) -> str:
    with open_compressed(path) as file:
        content = file.read()
    if not content.strip():
        ledger.skip("empty file", name)
        return ""
    if is_html:
        text = html_to_text(content)
        if not text.strip():
            ledger.skip("page without text", name)
            return ""
        return text
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # The slow detector reads only a sample; the few bytes that do not fit become replacement characters.
        guess = from_bytes(content[:65_536]).best()
    if guess is None or (b"\0" in content[:65_536].strip(b"\0") and not guess.encoding.startswith("utf_")):
        ledger.skip("not text", name)
        return ""
    ledger.note(f"decoded from {guess.encoding}")
    return content.decode(guess.encoding, errors="replace")
