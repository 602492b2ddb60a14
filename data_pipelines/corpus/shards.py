"""Documents between two stages: zstd-compressed JSON lines, written whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard
from datatrove.data import Document

from data_pipelines.corpus.documents import read_rows
from mythos.files import replacing


def shard_path(directory: Path, index: int) -> Path:
    """Where a stage keeps its shard of this number."""
    return directory / f"{index:05d}.jsonl.zst"


def read_shard(path: Path) -> Iterator[Document]:
    """The documents of a shard; ``source`` and ``licence`` are in their metadata."""
    for row in read_rows(path):
        origin = {"source": row["source"], "licence": row["licence"]}
        yield Document(text=row["text"], id=row["id"], metadata=row.get("metadata", {}) | origin)


def write_shard(path: Path, documents: Iterable[Document]) -> None:
    """Write documents one by one; the file appears when all of them are on disk."""
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file) as compressed,
    ):
        for document in documents:
            metadata = dict(document.metadata)
            row = {"id": document.id, "text": document.text}
            row |= {"source": metadata.pop("source"), "licence": metadata.pop("licence"), "metadata": metadata}
            compressed.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")


def remove_partial(directory: Path) -> None:
    """Delete what a killed run left under temporary names."""
    for path in directory.glob(".*.tmp-*"):
        if not _is_alive(int(path.name.rpartition("-")[2])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
