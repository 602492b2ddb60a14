"""Read records from files on disk; what cannot be read is counted, named and skipped."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import pyarrow
import pyarrow.parquet
from charset_normalizer import from_bytes

from data_pipelines.corpus.documents import open_zstd
from data_pipelines.corpus.html import html_to_text
from data_pipelines.corpus.ledger import Ledger

TEXT: Final = (".txt", ".text", ".md", ".markdown", ".rst", ".pod", ".dict")
HTML: Final = (".html", ".htm", ".xhtml")
ROWS: Final = (".jsonl", ".parquet")
_COMPRESSED: Final = (".gz", ".dz", ".zst")


class Row(NamedTuple):
    """One record of a source file."""

    id: str
    columns: dict[str, Any]


def is_readable(path: Path) -> bool:
    """Whether ``read_file`` supports the suffix of the name."""
    return _kind(path) in (*TEXT, *HTML, *ROWS)


def read_file(path: Path, name: str, text_column: str, ledger: Ledger) -> Iterator[Row]:
    """Yield the records of one file; their ids are ``name`` and their index in the file.

    A damaged file yields the records before the damage. Empty files, files that are not text and lines that are not
    JSON objects are skipped and counted.

    Raises:
        FileNotFoundError: the file does not exist any more.
    """
    kind = _kind(path)
    try:
        if kind == ".parquet":
            yield from _read_parquet(path, name)
        elif kind == ".jsonl":
            yield from _read_json_lines(path, name, ledger)
        elif text := _read_text(path, name, ledger, is_html=kind in HTML):
            yield Row(name, {text_column: text})
    except pyarrow.ArrowException:
        ledger.skip("damaged parquet", name)
    except (EOFError, OSError, zlib.error) as error:
        # An error with errno comes from the system, not from the content of the file.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        ledger.skip("damaged compression", name)


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    match path.suffix.lower():
        case ".gz" | ".dz":
            return gzip.open(path)
        case ".zst":
            return open_zstd(path)
        case _:
            return path.open("rb")


def _read_parquet(path: Path, name: str) -> Iterator[Row]:
    number = 0
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=64):
            for columns in batch.to_pylist():
                yield Row(f"{name}#{number}", columns)
                number += 1


def _read_json_lines(path: Path, name: str, ledger: Ledger) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            try:
                columns = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except ValueError:
                columns = None
            if isinstance(columns, dict):
                yield Row(f"{name}#{number}", columns)
            else:
                ledger.skip("line is no JSON object", f"{name} line {number + 1}")


def _read_text(path: Path, name: str, ledger: Ledger, *, is_html: bool) -> str:
    with _open(path) as file:
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
