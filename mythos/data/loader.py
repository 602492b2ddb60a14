"""Windows as micro-batches of tensors, in the same order for any number of ranks and workers."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mythos.config.base import ConfigError
from mythos.config.data import DataConfig
from mythos.data.stream import WindowArrays, Windows, training_windows
from mythos.types import IGNORED, Batch


class MicroBatches(IterableDataset[Batch]):
    """``make(index)`` for each index of a range; worker w of W makes every W-th."""

    def __init__(self, make: Callable[[int], Batch], indices: range) -> None:
        self._make = make
        self._indices = indices

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        share = self._indices[worker.id :: worker.num_workers] if worker else self._indices
        return map(self._make, share)


def training_loader(
    config: DataConfig, seed: int, next_sample: int = 0, rank: int = 0, world_size: int = 1
) -> DataLoader[Batch]:
    """Micro-batches of one rank, without end, from the global sample index ``next_sample`` on.

    A step is ``config.batch_size`` consecutive samples, cut into micro-batches that the ranks take in turn.

    Raises:
        ConfigError: a step does not divide into the ranks' micro-batches, or the split has no full window.
    """
    portion = world_size * config.micro_batch_size
    if config.batch_size % portion:
        raise ConfigError(
            f"data.batch_size is {config.batch_size}, but {world_size} ranks with a data.micro_batch_size of "
            f"{config.micro_batch_size} take {portion} sequences at a time; make it a multiple of {portion}."
        )
    windows = Windows(Path(config.dir), "train", config.seq_len, keep_partial=False)
    make = partial(training_batch, windows, config, seed, next_sample)
    return _loader(make, range(rank, sys.maxsize, world_size), config.num_workers)


def validation_loader(
    config: DataConfig, num_batches: int, rank: int = 0, world_size: int = 1
) -> DataLoader[Batch]:
    """This rank's share of the first ``num_batches`` micro-batches of the held-out split, in order.

    Raises:
        ConfigError: the micro-batches cannot be shared evenly, which would leave a rank waiting for ever.
    """
    windows = Windows(Path(config.dir), "validation", config.seq_len, keep_partial=True)
    num_batches = min(num_batches, num_micro_batches(windows, config.micro_batch_size))
    if num_batches % world_size:
        raise ConfigError(
            f"validation has {num_batches} micro-batches for {world_size} ranks; set "
            f"run.validation.num_batches to a multiple of {world_size} that the held-out text can fill."
        )
    make = partial(sequential_batch, windows, config.micro_batch_size, config.mask_documents)
    return _loader(make, range(rank, num_batches, world_size), num_workers=0)


def batches(
    directory: Path, split: str, seq_len: int, micro_batch_size: int, mask_documents: bool
) -> Iterator[Batch]:
    """A whole split in order; every token but the first of a shard is a target exactly once."""
    windows = Windows(directory, split, seq_len, keep_partial=True)
    for index in range(num_micro_batches(windows, micro_batch_size)):
        yield sequential_batch(windows, micro_batch_size, mask_documents, index)


def num_micro_batches(windows: Windows, micro_batch_size: int) -> int:
    """Micro-batches that hold all windows; the last may have fewer rows."""
    return -(-len(windows) // micro_batch_size)


def training_batch(windows: Windows, config: DataConfig, seed: int, next_sample: int, index: int) -> Batch:
    """Micro-batch ``index``, counted over all ranks from the sample ``next_sample``; a pure function."""
    first = next_sample + index * config.micro_batch_size
    sample_ids_B = np.arange(first, first + config.micro_batch_size)
    arrays = windows.read(training_windows(sample_ids_B, len(windows), seed))
    num_targets = config.batch_size * config.seq_len
    return _batch(arrays, config.mask_documents, sample_ids_B, num_targets, config.batch_size)


def sequential_batch(windows: Windows, micro_batch_size: int, mask_documents: bool, index: int) -> Batch:
    """Micro-batch ``index`` in reading order, which is a step of its own."""
    first = index * micro_batch_size
    window_B = np.arange(first, min(first + micro_batch_size, len(windows)))
    arrays = windows.read(window_B)
    num_targets = int((arrays.targets_BS != IGNORED).sum())
    return _batch(arrays, mask_documents, window_B, num_targets, len(window_B))


def _batch(
    arrays: WindowArrays, mask_documents: bool, sample_ids_B: np.ndarray, num_targets: int, num_sequences: int
) -> Batch:
    """Tensors over the arrays' memory; without masking, positions run through the whole window."""
    tokens_BS = torch.from_numpy(arrays.tokens_BS)
    if mask_documents:
        positions_BS = torch.from_numpy(arrays.positions_BS)
    else:
        positions_BS = torch.arange(tokens_BS.shape[1]).repeat(len(tokens_BS), 1)
    return Batch(
        tokens_BS=tokens_BS,
        targets_BS=torch.from_numpy(arrays.targets_BS),
        positions_BS=positions_BS,
        document_ids_BS=torch.from_numpy(arrays.document_ids_BS) if mask_documents else None,
        sample_ids_B=torch.from_numpy(sample_ids_B),
        num_targets=torch.tensor(float(num_targets), dtype=torch.float32),
        num_sequences=torch.tensor(float(num_sequences), dtype=torch.float32),
    )


def _loader(make: Callable[[int], Batch], indices: range, num_workers: int) -> DataLoader[Batch]:
    return DataLoader(
        MicroBatches(make, indices),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )
