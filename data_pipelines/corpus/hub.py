"""Stream records from the Hugging Face Hub, or from a local folder in the Hub's layout."""

import gzip
import zlib
from collections.abc import Iterator
from typing import Any, Final

import fsspec
import pyarrow
from datasets import IterableDataset, load_dataset, load_dataset_builder
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError

from data_pipelines.corpus.config import HubSource
from data_pipelines.corpus.row_texts import read_parquet
from data_pipelines.corpus.rows import Row, read_batch, read_json_lines
from data_pipelines.skips import SkipCounter
from mythos.config.base import ConfigError

_JSON_LINES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_BATCH_ROWS: Final = 64


def count_files(source: HubSource) -> int:
    """Count the data set's files that will be read.

    Raises:
        ConfigError: the data set does not exist or cannot be reached.
    """
    available = _open(source).num_shards
    return available if source.num_files is None else min(available, source.num_files)


def read_hub_file(
    source: HubSource, index: int, skips: SkipCounter, *, text_column_only: bool = False
) -> Iterator[Row]:
    """Yield the records of one of the data set's files, of parquet with the column of the text only if that is enough.

    Damage ends the file and is counted; rows that cannot be decoded are skipped and counted.
    """
    dataset = _open(source)
    name = f"{source.path}/{source.name or 'default'}/{source.split}-{index:05d}"
    try:
        url = _url(source, dataset, index)
        if url.endswith(_JSON_LINES):
            # The library gives up a whole file for one lone surrogate.
            with fsspec.open(url, "rb", compression="infer") as file:
                yield from read_json_lines(file, name, skips)
            return
        if text_column_only and url.endswith(".parquet"):
            # The library downloads all columns, and holds whole groups of rows.
            with fsspec.open(url, "rb") as file:
                yield from read_parquet(file, name, source.text_column, skips)
            return
        number = 0
        for table in dataset.shard(dataset.num_shards, index).with_format("arrow").iter(batch_size=_BATCH_ROWS):
            for batch in table.to_batches():
                yield from read_batch(batch, name, number, skips)
                number += batch.num_rows
    except (pyarrow.ArrowException, DatasetGenerationError, UnicodeError, EOFError, zlib.error, gzip.BadGzipFile):
        skips.skip("damaged file", name)


def _url(source: HubSource, dataset: IterableDataset, index: int) -> str:
    """Path or URL of the data set's file with this index; empty if its records are not those of one file."""
    builder = load_dataset_builder(source.path, source.name, data_dir=source.data_dir, revision=source.revision)
    files = (builder.config.data_files or {}).get(source.split, [])
    return str(files[index]) if len(files) == dataset.num_shards else ""


def _open(source: HubSource) -> IterableDataset:
    arguments: dict[str, Any] = {"data_dir": source.data_dir, "revision": source.revision}
    try:
        return load_dataset(source.path, source.name, split=source.split, streaming=True, **arguments)
    except (DatasetNotFoundError, DataFilesNotFoundError, ConnectionError, FileNotFoundError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"{source.path}: the data set cannot be opened ({reason}); check its name, the network and, for gated "
            "sets, HF_TOKEN."
        ) from None
