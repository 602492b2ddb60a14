"""Read cleaned documents, which ``mythos-data clean`` writes and ``mythos-data pack`` reads."""

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from data_pipelines.skips import Skips
from mythos.config.base import ConfigError
from mythos.data.text import encodable, printable_name

if TYPE_CHECKING:
    import pyarrow

COLUMNS: Final = ("id", "text", "source", "licence")
SUFFIXES: Final = (".jsonl.zst", ".parquet")
STAGES: Final = "stages"
"""Folder of unfinished work inside a corpus; it is removed when the corpus is complete."""


class Document(NamedTuple):
    """One text with its id, source and licence, all of them encodable."""

    id: str
    text: str
    source: str
    licence: str


def document_files(directory: Path) -> list[Path]:
    """Paths of a corpus's files in reading order.

    Raises:
        ConfigError: the folder is missing, unfinished, or holds no file of documents.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such folder; name one that mythos-data clean wrote.")
    if (directory / STAGES).is_dir():
        raise ConfigError(f"{directory} is not finished; run its mythos-data clean again, which resumes it.")
    files = sorted(path for path in directory.iterdir() if is_document_file(path))
    if not files:
        raise ConfigError(f"{directory} holds no .jsonl.zst or .parquet file; name one that mythos-data clean wrote.")
    return files


def is_corpus(directory: Path) -> bool:
    """Whether a folder is a cleaned corpus: its first file of documents has all ``COLUMNS``."""
    path = min((path for path in directory.iterdir() if is_document_file(path)), default=None)
    if path is None:
        return False
    try:
        return set(COLUMNS) <= set(_columns(path))
    except ConfigError:
        return False  # whoever reads the file reports its damage


def is_document_file(path: Path) -> bool:
    """Whether a file of a corpus holds documents; hidden ones are parts that a killed run left."""
    return path.name.endswith(SUFFIXES) and not path.name.startswith(".")


def read_documents(directory: Path, skips: Skips | None = None) -> Iterator[Document]:
    """Yield every document of the ``*.jsonl.zst`` and ``*.parquet`` files in a folder, by file name and line.

    Memory holds one block of one file, whatever the size of the corpus.

    Args:
        skips: counts the documents that are left out because their strings cannot be decoded.

    Raises:
        ConfigError: the folder holds no such file, or a file is damaged or lacks a column.
    """
    for path in document_files(directory):
        yield from read_file(path, skips)


def read_file(path: Path, skips: Skips | None = None) -> Iterator[Document]:
    """Yield the documents of one file, in order; see ``read_documents``.

    Raises:
        ConfigError: the file is damaged or lacks a column.
    """
    rows = _read_parquet(path) if path.suffix == ".parquet" else read_lines(path)
    for number, row in enumerate(rows, start=1):
        if row is None:
            if skips is not None:
                skips.skip("not decodable", f"document {number} of {printable_name(path.name)}")
            continue
        values = [encodable(value) for column in COLUMNS if isinstance(value := row.get(column), str)]
        if len(values) < len(COLUMNS):
            columns = ", ".join(map(encodable, sorted(row)))
            raise ConfigError(
                f"{path}: document {number} has the columns {columns}, but {', '.join(COLUMNS)} are needed, as "
                "text; write the file with mythos-data clean."
            )
        yield Document(*values)


def read_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the objects of a zstd-compressed JSON-lines file; None for one that is not UTF-8 or nested too deeply.

    Raises:
        ConfigError: the file is truncated or not zstd, or a line is not a JSON object.
    """
    number = 0
    try:
        with open_zstd(path) as file:
            for line in file:
                number += 1
                if not line.endswith(b"\n"):
                    raise ValueError("a line is not a complete JSON object")
                try:
                    row = json.loads(line)
                except (UnicodeDecodeError, RecursionError):
                    yield None
                    continue
                if not isinstance(row, dict):
                    raise ValueError("a line is not a JSON object")
                yield row
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConfigError(f"{path} is damaged at line {number} ({error}); write it again.") from None


def open_zstd(path: Path) -> IO[bytes]:
    """Open a file for reading decompressed bytes; damage and truncation raise an OSError without errno."""
    # pyarrow is used, since the zstandard package does not detect a truncated file.
    import pyarrow

    # It opens no path that is not UTF-8, so it is given an open file.
    return io.BufferedReader(pyarrow.input_stream(path.open("rb"), compression="zstd"), buffer_size=1 << 16)


def rows_of(batch: "pyarrow.RecordBatch") -> Iterator[dict[str, Any] | None]:
    """Yield the rows of an Arrow batch; None for one whose values Python cannot represent, such as invalid UTF-8."""
    try:
        yield from batch.to_pylist()
        return
    except (UnicodeDecodeError, ValueError, OverflowError):
        pass
    for index in range(batch.num_rows):
        try:
            (row,) = batch.slice(index, 1).to_pylist()
        except (UnicodeDecodeError, ValueError, OverflowError):
            row = None
        yield row


def _columns(path: Path) -> Iterable[str]:
    """Columns of a file of documents, by its schema or its first line."""
    if path.suffix != ".parquet":
        return next((row for row in read_lines(path) if row is not None), {})
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as content, pyarrow.parquet.ParquetFile(content) as file:
            return file.schema_arrow.names
    except pyarrow.ArrowException as error:
        raise ConfigError(str(error)) from None


def _read_parquet(path: Path) -> Iterator[dict[str, Any] | None]:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as content, pyarrow.parquet.ParquetFile(content) as file:
            columns = [name for name in file.schema_arrow.names if name in COLUMNS]
            for batch in file.iter_batches(batch_size=256, columns=columns):
                yield from rows_of(batch)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged ({' '.join(str(error).split())}); write it again.") from None
