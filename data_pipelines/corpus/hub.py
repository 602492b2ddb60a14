"""Stream records from the Hugging Face Hub, or from a local folder in the Hub's layout."""

from collections.abc import Iterator
from typing import Any

import pyarrow
from datasets import IterableDataset, load_dataset
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError

from data_pipelines.corpus.config import HubSource
from data_pipelines.corpus.files import Row
from data_pipelines.corpus.ledger import Ledger
from mythos.config.base import ConfigError


def count_files(source: HubSource) -> int:
    """Count the data set's files that will be read.

    Raises:
        ConfigError: the data set does not exist or cannot be reached.
    """
    available = _open(source).num_shards
    return available if source.num_files is None else min(available, source.num_files)


def read_hub_file(source: HubSource, index: int, ledger: Ledger) -> Iterator[Row]:
    """Yield the records of one of the data set's files; damage ends the file and is counted."""
    dataset = _open(source)
    name = f"{source.path}/{source.name or 'default'}/{source.split}-{index:05d}"
    try:
        for number, columns in enumerate(dataset.shard(num_shards=dataset.num_shards, index=index)):
            yield Row(f"{name}#{number}", columns)
    except (pyarrow.ArrowException, DatasetGenerationError, UnicodeDecodeError, EOFError):
        ledger.skip("damaged file", name)


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
