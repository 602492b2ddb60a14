"""Fixed windows of a split, and the order in which training meets them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mythos.config.base import ConfigError
from mythos.data.permutation import permute
from mythos.data.shards import open_split
from mythos.types import IGNORED


class WindowArrays(NamedTuple):
    """Some windows of S tokens each, all int64."""

    tokens_BS: np.ndarray
    targets_BS: np.ndarray
    """The token after each; ``IGNORED`` where the shard has ended."""
    positions_BS: np.ndarray
    """Distance from the start of the document, or of the window if that comes later."""
    document_ids_BS: np.ndarray
    """0 for the window's first document, then counting up."""


class Windows:
    """Window i of a shard covers tokens [i * S, i * S + S] of it; the last one is the next window's first.

    So every token is a target once, save the first of each shard, which is a separator. Windows are numbered
    through the shards in order.

    Args:
        keep_partial: also count the last window of each shard when it is not full.
    """

    def __init__(self, directory: Path, split: str, seq_len: int, keep_partial: bool) -> None:
        self._arguments = (directory, split, seq_len, keep_partial)
        self._shards = open_split(directory, split)
        self.seq_len = seq_len
        num_targets = np.array([len(shard.tokens_N) - 1 for shard in self._shards], np.int64)
        num_windows = (num_targets + (seq_len - 1 if keep_partial else 0)) // seq_len
        self._ends = np.cumsum(num_windows)
        self._firsts = self._ends - num_windows
        if not len(self):
            raise ConfigError(
                f"data.seq_len is {seq_len}, but no shard of the split {split!r} of {directory} predicts "
                f"more than {max(num_targets, default=0)} tokens; shorten data.seq_len or pack more text."
            )

    def __len__(self) -> int:
        """Number of windows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __reduce__(self) -> tuple:
        # A worker process maps the files itself; pickling a map would copy the corpus.
        return Windows, self._arguments

    def read(self, window_B: np.ndarray) -> WindowArrays:
        """The windows with these numbers, each in [0, len(self))."""
        shape = len(window_B), self.seq_len
        tokens_BS = np.zeros(shape, np.int64)
        targets_BS = np.full(shape, IGNORED, np.int64)
        opens_BS = np.zeros(shape, np.bool_)
        shard_B = np.searchsorted(self._ends, window_B, side="right")
        begin_B = (window_B - self._firsts[shard_B]) * self.seq_len
        for row, (shard, begin) in enumerate(zip(shard_B.tolist(), begin_B.tolist(), strict=True)):
            tokens_N, document_starts = self._shards[shard]
            end = begin + self.seq_len
            piece = tokens_N[begin:end]
            tokens_BS[row, : len(piece)] = piece
            following = tokens_N[begin + 1 : end + 1]
            targets_BS[row, : len(following)] = following
            first, last = np.searchsorted(document_starts, (begin, end))
            opens_BS[row, document_starts[first:last] - begin] = True
        positions_BS, document_ids_BS = _places(opens_BS)
        return WindowArrays(tokens_BS, targets_BS, positions_BS, document_ids_BS)


def training_windows(sample_ids_B: np.ndarray, num_windows: int, seed: int) -> np.ndarray:
    """The window behind each global sample index: a new permutation of all windows in every epoch.

    A pure function: it knows nothing of ranks, workers or what came before.
    """
    epoch_B, place_B = np.divmod(sample_ids_B, num_windows)
    window_B = np.empty_like(place_B)
    for epoch in np.unique(epoch_B):
        inside_B = epoch_B == epoch
        window_B[inside_B] = permute(place_B[inside_B], num_windows, seed, int(epoch))
    return window_B


def _places(opens_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and document ids from the places where documents open."""
    index_S = np.arange(opens_BS.shape[1])
    started_BS = np.maximum.accumulate(opens_BS * index_S, axis=1)
    document_ids_BS = np.cumsum(opens_BS, axis=1)
    return index_S - started_BS, document_ids_BS - document_ids_BS[:, :1]
