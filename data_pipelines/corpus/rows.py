"""Read records from JSON lines and Arrow batches; what cannot be read is counted, named and skipped."""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data_pipelines.corpus.documents import open_zstd, rows_of
from data_pipelines.skips import SkipCounter
from mythos.data.text import encodable, encodable_values

if TYPE_CHECKING:
    import pyarrow


class Row:
    """One record of a source; every string in it is encodable, whatever its reader found."""

    def __init__(self, id: str, columns: dict[str, Any]) -> None:
        self.id: str = encodable(id)
        self.columns: dict[str, Any] = encodable_values(columns)


def open_compressed(path: Path) -> IO[bytes] | gzip.GzipFile:
    """Open a file for reading its bytes, decompressed if its suffix is .gz, .dz or .zst."""
    match path.suffix.lower():
        case ".gz" | ".dz":
            return gzip.open(path)
        case ".zst":
            return open_zstd(path)
        case _:
            return path.open("rb")


def read_batch(batch: "pyarrow.RecordBatch", name: str, first: int, skips: SkipCounter) -> Iterator[Row]:
    """Yield the records of an Arrow batch whose first row has the index ``first`` in its file."""
    for number, columns in enumerate(rows_of(batch), start=first):
        if columns is None:
            skips.skip("row that cannot be decoded", f"{name}#{number}")
        else:
            yield Row(f"{name}#{number}", columns)


def read_json_lines(lines: Iterable[bytes], name: str, skips: SkipCounter) -> Iterator[Row]:
    """Yield the records of a JSON-lines file; lines that are not JSON objects are skipped and counted."""
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            columns = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            row = Row(f"{name}#{number}", columns) if isinstance(columns, dict) else None
        except (ValueError, RecursionError):
            row = None
        if row:
            yield row
        else:
            skips.skip("line is no JSON object", f"{name} line {number + 1}")
