"""Fit documents into windows, whole where possible (Ding et al. 2024, arXiv 2404.10830)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from mythos.data.manifest import BestFit, Shard, Split, TokenType
from mythos.data.shards import ShardWriter, shard_name

SHARD_NUM_TOKENS: Final = 2**25
"""Number of tokens that are fitted together and written as one shard."""


class _Piece(NamedTuple):
    """A contiguous part of a window: a separator, then a document or a part of it."""

    tokens_L: np.ndarray
    is_target_L: np.ndarray
    """Whether the next token is a target; after the last one comes a separator or the document's next token."""
    document: int
    following: int


class Placement(NamedTuple):
    """Position of a document that fits into a window."""

    window: int
    """Number of the window in the split."""
    start: int
    """Offset of its separator in the window."""


class BestFitWriter:
    """Writes documents as windows of ``seq_len`` inputs, about ``shard_num_tokens`` tokens at a time.

    A longer document is cut into pieces as long as a window, each of which begins with a separator; the token after
    that separator is not its target, since the end of the previous piece predicts it. So every token of text is a
    target once. The rest of a window is padded with separators that are not targets.

    Args:
        shards: shards that an earlier writer has already closed.
        best_fit: statistics of these shards.
    """

    def __init__(
        self,
        directory: Path,
        split: str,
        dtype: TokenType,
        separator_id: int,
        seq_len: int,
        shard_num_tokens: int = SHARD_NUM_TOKENS,
        shards: Sequence[Shard] = (),
        best_fit: BestFit | None = None,
        keep_placements: bool = False,
    ) -> None:
        self._directory = directory
        self._split = split
        self._dtype = dtype
        self._separator_id = separator_id
        self._seq_len = seq_len
        self._shard_num_tokens = shard_num_tokens
        self._pieces: list[_Piece] = []
        self._num_tokens = 0
        self._num_bytes = 0
        self._num_documents = best_fit.num_documents if best_fit else 0
        self._num_cropped = best_fit.num_cropped_documents if best_fit else 0
        self._num_pieces = best_fit.num_pieces if best_fit else 0
        self._num_padding = best_fit.num_padding_tokens if best_fit else 0
        self._num_windows = best_fit.num_windows if best_fit else 0
        self.shards = list(shards)
        self._keep_placements = keep_placements
        self.placements: dict[int, Placement] = {}
        """Placements by index in the order of ``add``; filled when a shard is closed, if ``keep_placements``."""

    def fits(self, num_tokens: int) -> bool:
        """Whether a document of ``num_tokens`` tokens fits into the pending shard; true if nothing is pending."""
        return not self._pieces or self._num_tokens + num_tokens <= self._shard_num_tokens

    def add(self, token_ids: Sequence[int] | np.ndarray, num_bytes: int, is_target: np.ndarray | None = None) -> None:
        """Append one document; ``is_target`` [L + 1] marks the targets among its tokens and the next separator."""
        if not self.fits(len(token_ids)):
            self.close_shard()
        tokens_N = np.array(token_ids, np.uint32)
        is_target_N = np.ones(len(tokens_N) + 1, np.bool_) if is_target is None else is_target
        room = self._seq_len - 1
        for begin in range(0, max(1, len(tokens_N)), room):
            end = min(begin + room, len(tokens_N))
            # The targets of a piece are its own tokens and the next token.
            piece_targets = is_target_N[begin : end + 1].copy()
            if begin:
                piece_targets[0] = False
            following = int(tokens_N[end]) if end < len(tokens_N) else self._separator_id
            piece = np.concatenate([np.array([self._separator_id], np.uint32), tokens_N[begin:end]])
            self._pieces.append(_Piece(piece, piece_targets, self._num_documents, following))
        self._num_documents += 1
        self._num_cropped += len(tokens_N) > room
        self._num_tokens += len(tokens_N)
        self._num_bytes += num_bytes

    def close_shard(self) -> None:
        """Fit the pending documents into windows and write them as a shard, if there are any."""
        if not self._pieces:
            return
        shard = ShardWriter(self._directory, shard_name(self._split, len(self.shards)), self._dtype)
        for members in fit([len(piece.tokens_L) for piece in self._pieces], self._seq_len):
            self._write(shard, [self._pieces[member] for member in members])
        shard.append(np.empty(0, np.int64), num_bytes=self._num_bytes)
        self._num_pieces += len(self._pieces)
        self.shards.append(shard.close())
        self._pieces, self._num_tokens, self._num_bytes = [], 0, 0

    def statistics(self) -> BestFit | None:
        """Statistics of all closed shards; None before the first."""
        if not self.shards:
            return None
        return BestFit(
            seq_len=self._seq_len,
            num_windows=self._num_windows,
            num_documents=self._num_documents,
            num_cropped_documents=self._num_cropped,
            num_pieces=self._num_pieces,
            num_padding_tokens=self._num_padding,
        )

    def finish(self) -> Split:
        """Close the last shard and return the split's manifest entry."""
        self.close_shard()
        return Split(shards=tuple(self.shards), best_fit=self.statistics())

    def abandon(self) -> None:
        """Discard the pending documents."""
        self._pieces = []

    def _write(self, shard: ShardWriter, pieces: list[_Piece]) -> None:
        window = np.full(self._seq_len + 1, self._separator_id, np.int64)
        is_target = np.zeros(self._seq_len + 1, np.bool_)
        starts, end = [], 0
        for piece in pieces:
            starts.append(end)
            if self._keep_placements:
                self.placements[piece.document] = Placement(self._num_windows, end)
            length = len(piece.tokens_L)
            window[end : end + length] = piece.tokens_L
            is_target[end + 1 : end + length + 1] = piece.is_target_L
            end += length
        window[end] = pieces[-1].following
        # A window's first token is never a target; leaving it out of the spans keeps them few.
        is_target[0] = True
        shard.append(window, starts, _false_spans(is_target))
        self._num_windows += 1
        self._num_padding += self._seq_len - end


def fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into bins by best-fit decreasing: the longest item first, each into the fullest bin that has room.

    Returns:
        Item indices of each bin, ascending; bins are in the order of their first items.
    """
    bins: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    """Bit r is set if some bin has room r."""
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        length = lengths[item]
        assert 0 < length <= capacity
        if candidates := rooms >> length:
            room = length + (candidates & -candidates).bit_length() - 1
            chosen = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, chosen = capacity, len(bins)
            bins.append([])
        bins[chosen].append(item)
        by_room[room - length].append(chosen)
        rooms |= 1 << (room - length)
    return sorted(sorted(members) for members in bins)


def _false_spans(flag_N: np.ndarray) -> list[tuple[int, int]]:
    """Half-open ranges in which the flag is false."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], flag_N, [True]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
