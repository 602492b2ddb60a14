"""The order in which training reads the windows of its sources."""

from pathlib import Path

import numpy as np

from mythos.config.data import DataConfig
from mythos.data.manifest import read_common_manifest
from mythos.data.mixture import Mixture
from mythos.data.permutation import permute
from mythos.data.skips import Ranges, sample_at
from mythos.data.windows import WindowArrays, Windows, read_windows


class TrainingStream:
    """A sample for each position, without end: a pure function of (config, seed, position, skipped ranges).

    Raises:
        ConfigError: a source is missing, has no full window, or has another tokenizer than the first.
    """

    def __init__(self, config: DataConfig, seed: int, skipped: Ranges = ()) -> None:
        read_common_manifest(config.directories)
        self.windows = [
            Windows(Path(directory), "train", config.seq_len, keep_partial=False) for directory in config.directories
        ]
        self._mixture = Mixture(config.stage_weights)
        self._seed = seed
        self._skipped = skipped

    def locate(self, position_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return global sample index, source and window in the source at each position, all int64 [B]."""
        sample_B = sample_at(position_B, self._skipped)
        source_B, index_B = self._mixture.locate(sample_B)
        window_B = np.empty_like(index_B)
        for source in np.unique(source_B):
            inside_B = source_B == source
            window_B[inside_B] = shuffled(index_B[inside_B], len(self.windows[source]), self._seed, int(source))
        return sample_B, source_B, window_B

    def read(self, position_B: np.ndarray) -> tuple[np.ndarray, WindowArrays]:
        """Return the global sample indices [B] and their windows."""
        sample_B, source_B, window_B = self.locate(position_B)
        return sample_B, read_windows(self.windows, source_B, window_B)

    def num_targets(self, start: int, end: int) -> int:
        """Count the targets in the samples at positions [start, end), without reading the samples."""
        if not any(windows.has_ignored for windows in self.windows):
            return (end - start) * self.windows[0].seq_len
        _, source_B, window_B = self.locate(np.arange(start, end))
        return sum(windows.num_targets(window_B[source_B == source]) for source, windows in enumerate(self.windows))


def source_positions(config: DataConfig, position: int, skipped: Ranges) -> list[int]:
    """Count the samples of each source before a position of the stream, skipped ones included."""
    used = int(sample_at(np.array([position - 1]), skipped)[0]) + 1 if position else 0
    return Mixture(config.stage_weights).counts(used).tolist()


def shuffled(index_B: np.ndarray, num_windows: int, seed: int, source: int = 0) -> np.ndarray:
    """Map indices into a source to windows: every epoch is a new permutation of all windows.

    A pure function: it does not depend on ranks, workers or earlier calls.
    """
    epoch_B, offset_B = np.divmod(index_B, num_windows)
    window_B = np.empty_like(offset_B)
    for epoch in np.unique(epoch_B):
        inside_B = epoch_B == epoch
        window_B[inside_B] = permute(offset_B[inside_B], num_windows, seed, int(epoch), source)
    return window_B
