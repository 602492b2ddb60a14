"""Write and read token shards on disk."""

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mythos.config.base import ConfigError
from mythos.data.manifest import Manifest, Shard, Split, TokenType, read_manifest
from mythos.files import sha256 as file_sha256

_INDEX_DTYPE = np.dtype("<i8")
_EMPTY = np.empty(0, _INDEX_DTYPE)


class ShardWriter:
    """Writes the files of one shard."""

    def __init__(self, directory: Path, name: str, dtype: TokenType, continues: bool = False) -> None:
        self._directory = directory
        self._name = name
        self._dtype = token_dtype(dtype)
        self._continues = continues
        self._file = (directory / f"{name}.tokens").open("wb")
        self._starts: list[int] = []
        self._spans: list[tuple[int, int]] = []
        self._num_bytes = 0
        self.num_tokens = 0

    def append(
        self,
        tokens_N: np.ndarray,
        starts: Sequence[int] = (),
        ignored: Sequence[tuple[int, int]] = (),
        num_bytes: int = 0,
    ) -> None:
        """Append tokens; ``starts`` and the half-open spans ``ignored`` ascend and are offsets into these tokens."""
        self._file.write(tokens_N.astype(self._dtype, copy=False).tobytes())
        self._starts += [self.num_tokens + start for start in starts]
        self._spans += [(self.num_tokens + start, self.num_tokens + end) for start, end in ignored]
        self._num_bytes += num_bytes
        self.num_tokens += len(tokens_N)

    def close(self) -> Shard:
        """Flush everything to disk and return the shard's manifest entry."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        documents_sha256 = self._write_index("documents", np.array(self._starts, _INDEX_DTYPE))
        ignored_sha256 = None
        if self._spans:
            starts, ends = np.array(self._spans, _INDEX_DTYPE).T
            before = np.cumsum(ends - starts) - (ends - starts)
            ignored_sha256 = self._write_index("ignored", np.concatenate([starts, ends, before]))
        return Shard(
            tokens_file=f"{self._name}.tokens",
            tokens_sha256=file_sha256(self._directory / f"{self._name}.tokens"),
            documents_file=f"{self._name}.documents",
            documents_sha256=documents_sha256,
            ignored_file=f"{self._name}.ignored" if self._spans else None,
            ignored_sha256=ignored_sha256,
            num_ignored_spans=len(self._spans),
            num_tokens=self.num_tokens,
            num_documents=len(self._starts),
            num_bytes=self._num_bytes,
            continues=self._continues,
        )

    def abandon(self) -> None:
        """Close the file without finishing it."""
        self._file.close()

    def _write_index(self, kind: str, index_N: np.ndarray) -> str:
        path = self._directory / f"{self._name}.{kind}"
        with path.open("wb") as file:
            file.write(index_N.tobytes())
            file.flush()
            os.fsync(file.fileno())
        return file_sha256(path)


class SplitWriter:
    """Writes the documents of one split, one after the other, into shards of at most ``shard_num_tokens``.

    A document that does not fit any more opens a new shard; one longer than a shard continues in the next, which
    begins with the last token of the previous one, so that no target is lost.

    Args:
        shards: shards that an earlier writer has already closed.
    """

    def __init__(
        self,
        directory: Path,
        split: str,
        dtype: TokenType,
        separator_id: int,
        shard_num_tokens: int,
        shards: Sequence[Shard] = (),
    ) -> None:
        assert shard_num_tokens >= 2
        self._directory = directory
        self._split = split
        self._dtype = dtype
        self._separator_id = separator_id
        self._shard_num_tokens = shard_num_tokens
        self._open: ShardWriter | None = None
        self.shards = list(shards)

    def fits(self, num_tokens: int) -> bool:
        """Whether a document of ``num_tokens`` tokens fits into the open shard; true if no shard is open."""
        return self._open is None or self._open.num_tokens + 1 + num_tokens <= self._shard_num_tokens

    def add(self, token_ids: Sequence[int] | np.ndarray, num_bytes: int) -> None:
        """Append one document of ``num_bytes`` bytes of text, with the separator in front."""
        if not self.fits(len(token_ids)):
            self.close_shard()
        document_N = np.empty(1 + len(token_ids), token_dtype(self._dtype))
        document_N[0] = self._separator_id
        document_N[1:] = token_ids
        limit = self._shard_num_tokens
        self._shard().append(document_N[:limit], [0], num_bytes=num_bytes)
        for begin in range(limit - 1, len(document_N) - 1, limit - 1):
            self.close_shard()
            self._shard(continues=True).append(document_N[begin : begin + limit])

    def close_shard(self) -> None:
        """Finish the open shard, if there is one."""
        if self._open is not None:
            self.shards.append(self._open.close())
            self._open = None

    def finish(self) -> Split:
        """Close the last shard and return the split's manifest entry."""
        self.close_shard()
        return Split(shards=tuple(self.shards))

    def abandon(self) -> None:
        """Close the open file without finishing its shard."""
        if self._open is not None:
            self._open.abandon()

    def _shard(self, continues: bool = False) -> ShardWriter:
        if self._open is None:
            self._open = ShardWriter(self._directory, shard_name(self._split, len(self.shards)), self._dtype, continues)
        return self._open


class OpenShard(NamedTuple):
    """Memory-mapped arrays of one shard."""

    tokens_N: np.ndarray
    """Unsigned token ids, separators included."""
    document_starts: np.ndarray
    """int64, ascending: offsets into ``tokens_N``."""
    ignored_starts: np.ndarray
    """int64, ascending: starts of the spans of tokens that are not targets."""
    ignored_ends: np.ndarray
    """int64: end of each span."""
    ignored_before: np.ndarray
    """int64: number of tokens in all earlier spans, for each span."""
    continues: bool
    """Whether the first token repeats the last one of the previous shard, in the middle of a document."""
    maps: tuple[mmap.mmap, ...]

    def release(self) -> None:
        """Release the pages read so far; they stay in the system's cache but no longer count as process memory."""
        for mapped in self.maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    def num_ignored(self, offsets: np.ndarray) -> np.ndarray:
        """Number of tokens before each offset that are not targets."""
        if not len(self.ignored_starts):
            return np.zeros_like(offsets)
        span = np.searchsorted(self.ignored_starts, offsets) - 1
        inside = np.minimum(offsets, self.ignored_ends[span]) - self.ignored_starts[span]
        return np.where(span < 0, 0, self.ignored_before[span] + inside)


def open_split(directory: Path, split: str) -> list[OpenShard]:
    """Map the shards of a split into memory without reading them.

    Raises:
        ConfigError: the dataset or the split is missing, or a file is missing or has the wrong size.
    """
    manifest = read_manifest(directory)
    if split not in manifest.splits:
        raise ConfigError(
            f"{directory} has no split {split!r}, only {', '.join(manifest.splits)}; pack the text again."
        )
    for path, num_bytes, _ in files_of(directory, manifest, split):
        if problem := wrong_size(path, num_bytes):
            raise ConfigError(problem)
    return [_open_shard(directory, shard, token_dtype(manifest.dtype)) for shard in manifest.splits[split].shards]


def files_of(directory: Path, manifest: Manifest, split: str) -> Iterator[tuple[Path, int | None, str]]:
    """Yield path, size in bytes if known, and SHA-256 of each file of a split."""
    for shard in manifest.splits[split].shards:
        token_size, index_size = token_dtype(manifest.dtype).itemsize, _INDEX_DTYPE.itemsize
        yield directory / shard.tokens_file, shard.num_tokens * token_size, shard.tokens_sha256
        yield directory / shard.documents_file, shard.num_documents * index_size, shard.documents_sha256
        if shard.ignored_file and shard.ignored_sha256:
            yield directory / shard.ignored_file, shard.num_ignored_spans * 3 * index_size, shard.ignored_sha256
    examples_file, examples_sha256 = manifest.splits[split].examples_file, manifest.splits[split].examples_sha256
    if examples_file and examples_sha256:
        yield directory / examples_file, None, examples_sha256


def wrong_size(path: Path, num_bytes: int | None) -> str | None:
    """Return an error sentence if a file is missing or has another size than ``num_bytes``, else None."""
    again = f"pack again with mythos-data pack --overwrite --to {path.parent}."
    if not path.is_file():
        return f"{path} is missing though the manifest names it; {again}"
    if num_bytes is not None and (actual := path.stat().st_size) != num_bytes:
        return f"{path} has {actual} bytes, but the manifest states {num_bytes}; {again}"
    return None


def token_dtype(name: TokenType) -> np.dtype:
    """Data type of a token on disk."""
    return np.dtype(name).newbyteorder("<")


def shard_name(split: str, index: int) -> str:
    """Common stem of the names of a shard's files."""
    return f"{split}-{index:05d}"


def _open_shard(directory: Path, shard: Shard, dtype: np.dtype) -> OpenShard:
    tokens_N, tokens_map = _mapped(directory / shard.tokens_file, dtype)
    starts, starts_map = (
        _mapped(directory / shard.documents_file, _INDEX_DTYPE) if shard.num_documents else (_EMPTY, None)
    )
    spans, spans_map = _mapped(directory / shard.ignored_file, _INDEX_DTYPE) if shard.ignored_file else (_EMPTY, None)
    maps = tuple(mapped for mapped in (tokens_map, starts_map, spans_map) if mapped is not None)
    ignored_starts, ignored_ends, ignored_before = np.split(spans, 3)
    return OpenShard(tokens_N, starts, ignored_starts, ignored_ends, ignored_before, shard.continues, maps)


def _mapped(path: Path, dtype: np.dtype) -> tuple[np.ndarray, mmap.mmap]:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype), mapped
