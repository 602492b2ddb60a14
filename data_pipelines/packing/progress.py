"""Save and load the progress of packing, so that it can resume."""

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
    """Contents of the closed shards; everything after them is repeated on resume."""

    key: str
    """Identifies the format, the tokenizer and the packing options."""
    num_parts: Count = 0
    parts_sha256: str | None = None
    """Hash of the parts of documents that the shards hold."""
    shards: dict[str, tuple[Shard, ...]] = field(default_factory=dict)
    best_fit: BestFit | None = None


def write_progress(directory: Path, progress: Progress) -> None:
    """Write the progress into a folder of unfinished shards."""
    write_text(directory / _FILE_NAME, json.dumps(encode(progress)))


def read_progress(directory: Path, key: str) -> Progress | None:
    """Read the progress in a folder of unfinished shards; None if there is none with this ``key``."""
    try:
        progress = decode(Progress, json.loads((directory / _FILE_NAME).read_bytes()))
    except (OSError, ValueError, ConfigError):
        return None
    return progress if progress.key == key else None


def forget_progress(directory: Path) -> None:
    """Delete the progress file."""
    (directory / _FILE_NAME).unlink(missing_ok=True)
