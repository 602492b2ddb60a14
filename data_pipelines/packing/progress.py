"""How far packing has come, so that it can go on."""

import json
from dataclasses import field
from pathlib import Path
from typing import Final

from mythos.config.base import ConfigError, Count, config, decode, encode
from mythos.data.manifest import BestFit, Shard
from mythos.files import write_text

_FILE_NAME: Final = "progress.json"


@config
class Progress:
    """What is in closed shards; everything after it is done again."""

    key: str
    """Changes with the format, the tokenizer and the way of cutting."""
    num_parts: Count = 0
    parts_sha256: str | None = None
    """Over the parts of documents that the shards hold."""
    shards: dict[str, tuple[Shard, ...]] = field(default_factory=dict)
    best_fit: BestFit | None = None


def write_progress(directory: Path, progress: Progress) -> None:
    """Replace the record in a folder of unfinished shards."""
    write_text(directory / _FILE_NAME, json.dumps(encode(progress)))


def read_progress(directory: Path, key: str) -> Progress | None:
    """The record in a folder of unfinished shards, if it was made with the same ``key``."""
    try:
        progress = decode(Progress, json.loads((directory / _FILE_NAME).read_bytes()))
    except (OSError, ValueError, ConfigError):
        return None
    return progress if progress.key == key else None


def forget_progress(directory: Path) -> None:
    """Take the record away."""
    (directory / _FILE_NAME).unlink(missing_ok=True)
