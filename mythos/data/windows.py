"""Read fixed-size windows of a packed split."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import numpy as np

from mythos.config.base import ConfigError
from mythos.data.manifest import read_manifest
from mythos.data.shards import OpenShard, open_split
from mythos.types import IGNORED

_WINDOWS_PER_RELEASE: Final = 512
"""Number of windows read before their pages are released."""


class WindowArrays(NamedTuple):
    """Some windows of S tokens each, all int64."""

    tokens_BS: np.ndarray
    targets_BS: np.ndarray
    """The next token; ``IGNORED`` where the shard has ended or the token is not a target."""
    positions_BS: np.ndarray
    """Distance from the start of the document, or of the window if that comes later."""
    document_ids_BS: np.ndarray
    """Number of the document within the window, from 0."""


class Windows:
    """The windows of a split, numbered through its shards in order.

    In a stream of documents, window i of a shard covers its tokens [i * S, i * S + S]; the last of them is the first of
    the next window. So every token is a target once, except the first of each shard, which is a separator or a
    repetition. In a best-fit split, windows of S + 1 tokens do not overlap.

    Args:
        keep_partial: also count the last window of each shard when it is not full.
    """

    def __init__(self, directory: Path, split: str, seq_len: int, keep_partial: bool) -> None:
        self._arguments = (directory, split, seq_len, keep_partial)
        self._shards = open_split(directory, split)
        manifest = read_manifest(directory)
        self._vocab_size = manifest.vocab_size
        self._paths = [directory / shard.tokens_file for shard in manifest.splits[split].shards]
        best_fit = manifest.splits[split].best_fit
        if best_fit and best_fit.seq_len != seq_len:
            raise ConfigError(
                f"data.seq_len is {seq_len}, but the split {split!r} of {directory} was fitted into windows of "
                f"{best_fit.seq_len}; set data.seq_len={best_fit.seq_len}, or pack again with --seq-len {seq_len}."
            )
        self.seq_len = seq_len
        self._stride = seq_len + 1 if best_fit else seq_len
        num_targets = np.array([len(shard.tokens_N) - 1 for shard in self._shards], np.int64)
        spare = 1 if best_fit else seq_len - 1 if keep_partial else 0
        self._ends: list[int] = np.cumsum((num_targets + spare) // self._stride).tolist()
        self._touched: set[int] = set()
        self._num_read = 0
        if not len(self):
            raise ConfigError(
                f"data.seq_len is {seq_len}, but no shard of the split {split!r} of {directory} predicts "
                f"more than {max(num_targets, default=0)} tokens; shorten data.seq_len or pack more text."
            )

    def __len__(self) -> int:
        """Number of windows."""
        return self._ends[-1] if self._ends else 0

    def __reduce__(self) -> tuple:
        # A worker process maps the files itself; pickling a map would copy the corpus.
        return Windows, self._arguments

    @property
    def has_ignored(self) -> bool:
        """Whether some tokens are not targets."""
        return any(len(shard.ignored_starts) for shard in self._shards)

    def read(self, window_B: np.ndarray) -> WindowArrays:
        """Read the windows with these numbers, each in [0, len(self))."""
        return read_windows([self], np.zeros_like(window_B), window_B)

    def num_targets(self, window_B: np.ndarray) -> int:
        """Count the targets in these windows, which must be full, without reading them."""
        if not self.has_ignored:
            return len(window_B) * self.seq_len
        shard_B = np.searchsorted(self._ends, window_B, side="right")
        num_ignored = 0
        for shard in np.unique(shard_B):
            begin = (window_B[shard_B == shard] - self._first(shard)) * self._stride
            counts = self._shards[shard].num_ignored(np.stack([begin + 1, begin + 1 + self.seq_len]))
            num_ignored += int((counts[1] - counts[0]).sum())
        return len(window_B) * self.seq_len - num_ignored

    def fill(self, window: int, tokens_S: np.ndarray, targets_S: np.ndarray, opens_S: np.ndarray) -> None:
        """Write one window into arrays that hold 0, ``IGNORED`` and False.

        Raises:
            ConfigError: it holds an id that the tokenizer does not have.
        """
        index = bisect_right(self._ends, window)
        begin = (window - self._first(index)) * self._stride
        shard = self._shards[index]
        end = begin + self.seq_len
        piece = shard.tokens_N[begin : end + 1]
        if piece.max() >= self._vocab_size:
            self._refuse(index, begin + int((piece >= self._vocab_size).argmax()))
        tokens_S[: len(piece)] = piece[: self.seq_len]
        targets_S[: len(piece) - 1] = piece[1:]
        first, last = np.searchsorted(shard.document_starts, (begin, end))
        opens_S[shard.document_starts[first:last] - begin] = True
        if len(shard.ignored_starts):
            _ignore(shard, begin + 1, targets_S)
        self._release_pages(index)

    def _refuse(self, shard: int, offset: int) -> NoReturn:
        path, token = self._paths[shard], self._shards[shard].tokens_N[offset]
        raise ConfigError(
            f"{path}: token {offset} has the id {token}, but the tokenizer that packed it has {self._vocab_size} "
            f"tokens; the file is damaged: pack again with mythos-data pack --overwrite --to {path.parent}."
        )

    def _first(self, shard: int) -> int:
        return self._ends[shard - 1] if shard else 0

    def _release_pages(self, shard: int) -> None:
        """Release the pages of the files regularly, so that process memory does not grow with what was read."""
        self._touched.add(shard)
        self._num_read += 1
        if self._num_read % _WINDOWS_PER_RELEASE == 0:
            for touched in self._touched:
                self._shards[touched].release()
            self._touched.clear()


def read_windows(sources: Sequence[Windows], source_B: np.ndarray, window_B: np.ndarray) -> WindowArrays:
    """Read window ``window_B[i]`` of ``sources[source_B[i]]`` into row i."""
    shape = len(window_B), sources[0].seq_len
    tokens_BS = np.zeros(shape, np.int64)
    targets_BS = np.full(shape, IGNORED, np.int64)
    opens_BS = np.zeros(shape, np.bool_)
    for row, (source, window) in enumerate(zip(source_B.tolist(), window_B.tolist(), strict=True)):
        sources[source].fill(window, tokens_BS[row], targets_BS[row], opens_BS[row])
    positions_BS, document_ids_BS = _positions_and_ids(opens_BS)
    return WindowArrays(tokens_BS, targets_BS, positions_BS, document_ids_BS)


def _ignore(shard: OpenShard, begin: int, targets_S: np.ndarray) -> None:
    """Set the targets in ignored spans to ``IGNORED``; ``begin`` is the offset of the first target."""
    first = np.searchsorted(shard.ignored_ends, begin, side="right")
    last = np.searchsorted(shard.ignored_starts, begin + len(targets_S))
    spans = zip(shard.ignored_starts[first:last].tolist(), shard.ignored_ends[first:last].tolist(), strict=True)
    for start, end in spans:
        targets_S[max(0, start - begin) : end - begin] = IGNORED


def _positions_and_ids(opens_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and document ids from the flags of document starts."""
    index_S = np.arange(opens_BS.shape[1])
    started_BS = np.maximum.accumulate(opens_BS * index_S, axis=1)
    document_ids_BS = np.cumsum(opens_BS, axis=1)
    return index_S - started_BS, document_ids_BS - document_ids_BS[:, :1]
