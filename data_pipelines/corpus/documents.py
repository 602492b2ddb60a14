"""Cleaned documents on disk: what ``mythos-data clean`` leaves for ``mythos-data pack``."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from mythos.config.base import ConfigError

COLUMNS: Final = ("id", "text", "source", "licence")
SUFFIXES: Final = (".jsonl.zst", ".parquet")
STAGES: Final = "stages"
"""Folder of unfinished work inside a corpus; it goes away when the corpus is complete."""


class Document(NamedTuple):
    """One text, where it came from and under which terms."""

    id: str
    text: str
    source: str
    licence: str


def document_files(directory: Path) -> list[Path]:
    """The files of a corpus in reading order.

    Raises:
        ConfigError: the folder is missing, unfinished, or holds no file of documents.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such folder; name one that mythos-data clean wrote.")
    if (directory / STAGES).is_dir():
        raise ConfigError(f"{directory} is not finished; run its mythos-data clean again, which goes on where it was.")
    files = sorted(path for path in directory.iterdir() if path.name.endswith(SUFFIXES) and path.name[0] != ".")
    if not files:
        raise ConfigError(f"{directory} holds no .jsonl.zst or .parquet file; name one that mythos-data clean wrote.")
    return files


def read_documents(directory: Path) -> Iterator[Document]:
    """Every document of the ``*.jsonl.zst`` and ``*.parquet`` files in a folder, in order of file name and line.

    Holds a block of one file in memory, whatever the size of the corpus.

    Raises:
        ConfigError: the folder holds no such file, or a file is damaged or lacks a column.
    """
    for path in document_files(directory):
        yield from read_file(path)


def read_file(path: Path) -> Iterator[Document]:
    """The documents of one file, in order.

    Raises:
        ConfigError: the file is damaged or lacks a column.
    """
    rows = _read_parquet(path) if path.suffix == ".parquet" else read_rows(path)
    for number, row in enumerate(rows, start=1):
        values = [row.get(column) for column in COLUMNS]
        if not all(isinstance(value, str) for value in values):
            raise ConfigError(
                f"{path}: document {number} has the columns {', '.join(sorted(row))}, but {', '.join(COLUMNS)} "
                "are needed, as text; write the file with mythos-data clean."
            )
        yield Document(*values)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a zstd-compressed JSON-lines file.

    Raises:
        ConfigError: the file is truncated, is not zstd, or a line is no JSON object.
    """
    import zstandard

    number = 0
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as raw:
            for line in io.TextIOWrapper(raw, encoding="utf-8", newline="\n"):
                number += 1
                row = json.loads(line)
                if not line.endswith("\n") or not isinstance(row, dict):
                    raise ValueError("a line is no whole JSON object")
                yield row
    except (zstandard.ZstdError, ValueError) as error:
        raise ConfigError(f"{path} is damaged at line {number} ({error}); write it again.") from None


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name in COLUMNS]
            for batch in file.iter_batches(batch_size=256, columns=columns):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ConfigError(f"{path} is damaged ({' '.join(str(error).split())}); write it again.") from None
