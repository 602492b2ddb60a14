"""Write and read the documents of a stage: zstd-compressed JSON lines, written atomically."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard
from datatrove.data import Document

from data_pipelines.corpus.documents import read_lines
from mythos.files import replacing


def shard_path(directory: Path, index: int) -> Path:
    """Path of a stage's shard with this number."""
    return directory / f"{index:05d}.jsonl.zst"


def read_shard(path: Path) -> Iterator[Document]:
    """Yield the documents of a shard; ``source`` and ``licence`` are in their metadata."""
    for row in read_lines(path):
        assert row is not None
        origin = {"source": row["source"], "licence": row["licence"]}
        yield Document(text=row["text"], id=row["id"], metadata=row.get("metadata", {}) | origin)


def write_shard(path: Path, documents: Iterable[Document]) -> None:
    """Write documents one by one; the file appears once all of them are on disk."""
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
    """Delete the temporary files of killed runs."""
    for path in directory.glob(".*.tmp-*"):
        if not _is_running(int(path.name.rpartition("-")[2])):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
