"""Read the text in one column of a file of rows: JSON lines, parquet, or an Arrow file of ``datasets``."""

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from data_pipelines.corpus.rows import Row, open_compressed, read_batch, read_json_lines
from data_pipelines.skips import SkipCounter
from mythos.config.base import ConfigError
from mythos.data.text import encodable, printable_name

if TYPE_CHECKING:
    import pyarrow

MOST_ROWS_WITHOUT_TEXT: Final = 1000
"""Number of rows at the start of a file after which a column without text is refused."""
_MOST_ROWS: Final = 64
_BATCH_BYTES: Final = 2**22
_BUFFER_BYTES: Final = 2**20
_ARROW_END: Final = b"\xff\xff\xff\xff\0\0\0\0"
_KINDS: Final = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}


class RowText(NamedTuple):
    """Text of one row, and the row's id: the name of its file and its index."""

    id: str
    text: str


def read_row_texts(path: Path, name: str, column: str, skips: SkipCounter) -> Iterator[RowText]:
    """Yield the texts of a file of rows in order; memory holds one batch of rows.

    Lines that are not JSON objects and rows without text are counted in ``skips`` with their row, from 1.

    Raises:
        ConfigError: the file is damaged, or its rows have no text in ``column``.
    """
    printable = printable_name(str(path))
    match path.suffix.lower():
        case ".parquet":
            rows = _read_parquet(path, name, column, skips)
        case ".arrow":
            rows = _read_arrow(path, name, column, skips)
        case _:
            rows = _read_json_lines(path, name, skips)
    yield from texts_of(_until_damage(rows, printable), printable, column, skips)


def texts_of(rows: Iterable[Row], path: str, column: str, skips: SkipCounter) -> Iterator[RowText]:
    """Yield the texts of the rows of one file; ``path`` names it in errors.

    Raises:
        ConfigError: no row, or none of the first ``MOST_ROWS_WITHOUT_TEXT``, has text in ``column``.
    """
    column = encodable(column)
    first: tuple[int, str, Row] | None = None
    num_without, has_text = 0, False
    for row in rows:
        value = row.columns.get(column)
        if isinstance(value, str):
            has_text = True
            yield RowText(row.id, value)
            continue
        name, _, index = row.id.rpartition("#")
        problem = _problem(row, column)
        skips.skip(problem, f"{name} row {int(index) + 1}")
        first = first or (int(index) + 1, problem, row)
        num_without += 1
        if not has_text and num_without == MOST_ROWS_WITHOUT_TEXT:
            break
    if first and not has_text:
        number, problem, row = first
        columns = ", ".join(row.columns) or "none"
        others = "" if num_without == 1 else f", as {num_without - 1:,} other rows and none with text"
        raise ConfigError(
            f"{path}: row {number} has {problem}{others}; its columns are {columns}; name the one of the text with "
            "--text-column."
        )


def damage(path: str, where: str, error: Exception) -> Exception:
    """Return the error to raise for one that occurred while a file was read: a ``ConfigError`` if the file is damaged.

    An error with errno comes from the system, not from the content of the file, and is returned.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return ConfigError(f"{path} is damaged{where} ({' '.join(str(error).split()).rstrip('.')}); write it again.")


def _until_damage(rows: Iterable[Row], path: str) -> Iterator[Row]:
    import pyarrow

    number = 0
    try:
        for row in rows:
            number = int(row.id.rpartition("#")[2]) + 1
            yield row
    except (EOFError, OSError, UnicodeDecodeError, zlib.error, pyarrow.ArrowException) as error:
        raise damage(path, f" after row {number:,}", error) from None


def _problem(row: Row, column: str) -> str:
    if column not in row.columns:
        return f"no column {column!r}"
    value: Any = row.columns[column]
    what = "null" if value is None else _KINDS.get(type(value), f"a value of type {type(value).__name__}")
    return f"{what} in the column {column!r}"


def _read_json_lines(path: Path, name: str, skips: SkipCounter) -> Iterator[Row]:
    with open_compressed(path) as file:
        yield from read_json_lines(file, name, skips)


def read_parquet(content: IO[bytes], name: str, column: str, skips: SkipCounter) -> Iterator[Row]:
    """Yield the rows of an open parquet file with one column, or the first row with the names of all if it is missing.

    Memory holds some pages of the column, however large the groups of rows are.
    """
    import pyarrow.parquet

    # By default the library holds a whole column of a group of rows.
    with pyarrow.parquet.ParquetFile(content, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
        if column in file.schema_arrow.names:
            groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
            num_rows = _rows_at_once(file.metadata.num_rows, sum(group.total_byte_size for group in groups))
            batches = file.iter_batches(batch_size=num_rows, columns=[column], use_threads=False)
            yield from _read_batches(batches, name, skips)
            pyarrow.default_memory_pool().release_unused()  # the text is read several times
        elif file.metadata.num_rows:
            yield Row(f"{name}#0", dict.fromkeys(file.schema_arrow.names))


def _read_parquet(path: Path, name: str, column: str, skips: SkipCounter) -> Iterator[Row]:
    with path.open("rb") as content:
        yield from read_parquet(content, name, column, skips)


def _read_arrow(path: Path, name: str, column: str, skips: SkipCounter) -> Iterator[Row]:
    import pyarrow.ipc

    with path.open("rb") as content, pyarrow.ipc.open_stream(content) as reader:
        # The library takes a file that ends after any block of rows for a whole one.
        if os.pread(content.fileno(), len(_ARROW_END), max(0, path.stat().st_size - len(_ARROW_END))) != _ARROW_END:
            raise EOFError("its end is missing")
        names = reader.schema.names
        if column in names:
            yield from _read_batches(_slices(reader, column), name, skips)
        elif any(batch.num_rows for batch in reader):
            yield Row(f"{name}#0", dict.fromkeys(names))


def _slices(batches: Iterable["pyarrow.RecordBatch"], column: str) -> Iterator["pyarrow.RecordBatch"]:
    for batch in batches:
        one_column = batch.select([column])
        num_rows = _rows_at_once(batch.num_rows, one_column.nbytes)
        for start in range(0, batch.num_rows, num_rows):
            yield one_column.slice(start, num_rows)


def _rows_at_once(num_rows: int, num_bytes: int) -> int:
    """Rows that become Python objects together: some MiB of them, and 64 at most."""
    return max(1, min(_MOST_ROWS, _BATCH_BYTES * num_rows // max(1, num_bytes)))


def _read_batches(batches: Iterable["pyarrow.RecordBatch"], name: str, skips: SkipCounter) -> Iterator[Row]:
    number = 0
    for batch in batches:
        yield from read_batch(batch, name, number, skips)
        number += batch.num_rows
