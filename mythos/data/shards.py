"""Token shards on disk: the writer, the reader, and the check that nothing changed since."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from mythos.config.base import ConfigError
from mythos.data.manifest import TOKENIZER_FILE, Manifest, Shard, Split, TokenType, read_manifest
from mythos.files import sha256 as file_sha256

_START_DTYPE = np.dtype("<i8")


class OpenShard(NamedTuple):
    """Memory-mapped arrays of one shard."""

    tokens_N: np.ndarray
    """Unsigned token ids, separators included."""
    document_starts: np.ndarray
    """int64, increasing from 0: places in ``tokens_N``."""


class SplitWriter:
    """Writes the documents of one split, in order; a shard is closed once it holds ``shard_num_tokens``."""

    def __init__(
        self, directory: Path, split: str, dtype: TokenType, separator_id: int, shard_num_tokens: int
    ) -> None:
        self._directory = directory
        self._split = split
        self._dtype = _token_dtype(dtype)
        self._separator_id = separator_id
        self._shard_num_tokens = shard_num_tokens
        self._shards: list[Shard] = []
        self._file: BinaryIO | None = None

    def add(self, token_ids: Sequence[int], num_bytes: int) -> None:
        """Append one document of ``num_bytes`` bytes of text; the separator is put in front."""
        if self._file is None:
            self._open()
        assert self._file is not None
        document = np.array([self._separator_id, *token_ids], self._dtype).tobytes()
        self._file.write(document)
        self._digest.update(document)
        self._starts.append(self._num_tokens)
        self._num_tokens += 1 + len(token_ids)
        self._num_bytes += num_bytes
        if self._num_tokens >= self._shard_num_tokens:
            self._close()

    def finish(self) -> Split:
        """Close the last shard; returns the manifest's description of all of them."""
        if self._file is not None:
            self._close()
        return Split(shards=tuple(self._shards))

    def _open(self) -> None:
        self._name = f"{self._split}-{len(self._shards):05d}"
        self._file = (self._directory / f"{self._name}.tokens").open("wb")
        self._digest = hashlib.sha256()
        self._starts: list[int] = []
        self._num_tokens = 0
        self._num_bytes = 0

    def _close(self) -> None:
        assert self._file is not None
        _flush_and_close(self._file)
        self._file = None
        starts = np.array(self._starts, _START_DTYPE).tobytes()
        documents_file = (self._directory / f"{self._name}.documents").open("wb")
        documents_file.write(starts)
        _flush_and_close(documents_file)
        self._shards.append(
            Shard(
                tokens_file=f"{self._name}.tokens",
                tokens_sha256=self._digest.hexdigest(),
                documents_file=f"{self._name}.documents",
                documents_sha256=hashlib.sha256(starts).hexdigest(),
                num_tokens=self._num_tokens,
                num_documents=len(self._starts),
                num_bytes=self._num_bytes,
            )
        )


def open_split(directory: Path, split: str) -> list[OpenShard]:
    """Map the shards of a split into memory; nothing is read yet.

    Raises:
        ConfigError: the dataset or the split is missing, or a file is missing or has the wrong size.
    """
    manifest = read_manifest(directory)
    if split not in manifest.splits:
        raise ConfigError(
            f"{directory} has no split {split!r}, only {', '.join(manifest.splits)}; pack the text again."
        )
    for path, num_bytes, _ in _files_of(directory, manifest, split):
        if problem := _wrong_size(path, num_bytes):
            raise ConfigError(problem)
    return [
        OpenShard(
            _mapped(directory / shard.tokens_file, _token_dtype(manifest.dtype)),
            _mapped(directory / shard.documents_file, _START_DTYPE),
        )
        for shard in manifest.splits[split].shards
    ]


def verify(directory: Path) -> list[str]:
    """Read every file again; one sentence for each that is not what the manifest says, none when all are.

    Raises:
        ConfigError: there is no manifest that could be read.
    """
    manifest = read_manifest(directory)
    problems = []
    tokenizer_path = directory / TOKENIZER_FILE
    if not tokenizer_path.is_file() or file_sha256(tokenizer_path) != manifest.tokenizer_sha256:
        problems.append(
            f"{tokenizer_path} is not the tokenizer that packed {directory}; restore it, "
            f"or pack again with mythos-data pack --overwrite --to {directory}."
        )
    files = [item for split in manifest.splits for item in _files_of(directory, manifest, split)]
    for path, num_bytes, sha256 in tqdm(files, desc="verifying", unit="file", disable=None):
        if problem := _wrong_size(path, num_bytes):
            problems.append(problem)
        elif (found := file_sha256(path)) != sha256:
            problems.append(
                f"{path} changed after it was packed (SHA-256 {found[:12]}, the manifest says {sha256[:12]});"
                f" pack again with mythos-data pack --overwrite --to {directory}."
            )
    return problems


def _files_of(directory: Path, manifest: Manifest, split: str) -> Iterator[tuple[Path, int, str]]:
    """Path, size in bytes and SHA-256 of each file of a split."""
    for shard in manifest.splits[split].shards:
        token_size = _token_dtype(manifest.dtype).itemsize
        yield directory / shard.tokens_file, shard.num_tokens * token_size, shard.tokens_sha256
        start_size = _START_DTYPE.itemsize
        yield directory / shard.documents_file, shard.num_documents * start_size, shard.documents_sha256


def _wrong_size(path: Path, num_bytes: int) -> str | None:
    again = f"pack again with mythos-data pack --overwrite --to {path.parent}."
    if not path.is_file():
        return f"{path} is missing though the manifest names it; {again}"
    if (found := path.stat().st_size) != num_bytes:
        return f"{path} has {found} bytes, but the manifest says {num_bytes}; {again}"
    return None


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    # A plain view of the map: slicing np.memmap itself costs several times as much.
    return np.asarray(np.memmap(path, dtype, mode="r"))


def _token_dtype(name: TokenType) -> np.dtype:
    return np.dtype(name).newbyteorder("<")


def _flush_and_close(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
