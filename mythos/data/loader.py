"""Load windows as micro-batches of tensors, in the same order for any number of ranks and workers."""

import atexit
import multiprocessing
import signal
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mythos.config.base import ConfigError
from mythos.config.data import DataConfig
from mythos.data.mixture import Mixture
from mythos.data.skips import Ranges
from mythos.data.stream import TrainingStream
from mythos.data.windows import WindowArrays, Windows, read_windows
from mythos.types import IGNORED, Batch


class WorkerError(ConfigError):
    """A ConfigError in a worker: the same sentence, without the traceback that torch puts in front of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].strip())


class MicroBatches(IterableDataset[Batch]):
    """Yields ``make(index)`` for each index of a range; worker w of W makes every W-th, as a pickled batch."""

    def __init__(self, make: Callable[[int], Batch], indices: range) -> None:
        self._make = make
        self._indices = indices

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        if worker is None:
            return map(self._make, self._indices)
        batches = map(self._make_in_worker, self._indices[worker.id :: worker.num_workers])
        return map(_PickledBatch, batches)  # type: ignore[arg-type]  # it is unpickled as a Batch

    def _make_in_worker(self, index: int) -> Batch:
        try:
            return self._make(index)
        except ConfigError as error:
            raise WorkerError(str(error)) from None


class _PickledBatch:
    """A micro-batch that is pickled as one tensor, since each tensor would need its own file descriptor."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        batch = self._batch
        parts = [batch.tokens_BS, batch.targets_BS, batch.positions_BS]
        if batch.document_ids_BS is not None:
            parts.append(batch.document_ids_BS)
        scalars = batch.num_targets.item(), batch.num_sequences.item(), batch.num_documents
        return _unpack, (torch.stack(parts), batch.sample_ids_B.tolist(), *scalars)


def _unpack(
    parts_PBS: Tensor, sample_ids: list[int], num_targets: float, num_sequences: float, num_documents: int | None
) -> Batch:
    tokens_BS, targets_BS, positions_BS, *document_ids = parts_PBS.unbind()
    return Batch(
        tokens_BS=tokens_BS,
        targets_BS=targets_BS,
        positions_BS=positions_BS,
        document_ids_BS=document_ids[0] if document_ids else None,
        sample_ids_B=torch.tensor(sample_ids, dtype=torch.int64),
        num_targets=torch.tensor(num_targets, dtype=torch.float32),
        num_sequences=torch.tensor(num_sequences, dtype=torch.float32),
        num_documents=num_documents,
    )


def training_loader(
    config: DataConfig, seed: int, next_sample: int = 0, rank: int = 0, world_size: int = 1, skipped: Ranges = ()
) -> DataLoader[Batch]:
    """Endless micro-batches of one rank, from the position ``next_sample`` of the stream on.

    A step is ``config.batch_size`` consecutive samples, split into micro-batches that are assigned to the ranks
    round-robin.

    Raises:
        ConfigError: a step is not a multiple of the ranks' micro-batches, or a source cannot be read.
    """
    portion = world_size * config.micro_batch_size
    if config.batch_size % portion:
        raise ConfigError(
            f"data.batch_size is {config.batch_size}, but {world_size} ranks with a data.micro_batch_size of "
            f"{config.micro_batch_size} take {portion} sequences at a time; make it a multiple of {portion}."
        )
    make = TrainingBatches(TrainingStream(config, seed, skipped), config, next_sample)
    return _loader(make, range(rank, sys.maxsize, world_size), config.num_workers)


class TrainingBatches:
    """Returns micro-batch ``index``, counted over all ranks from the position ``next_sample``; a pure function."""

    def __init__(self, stream: TrainingStream, config: DataConfig, next_sample: int) -> None:
        self._stream = stream
        self._config = config
        self._next_sample = next_sample
        self._counted_step, self._num_targets = -1, 0

    def __call__(self, index: int) -> Batch:
        config = self._config
        first = self._next_sample + index * config.micro_batch_size
        sample_ids_B, arrays = self._stream.read(np.arange(first, first + config.micro_batch_size))
        step = index * config.micro_batch_size // config.batch_size
        if step != self._counted_step:
            start = self._next_sample + step * config.batch_size
            # The loss of a step whose targets are all masked is zero, not zero divided by zero.
            self._num_targets = max(1, self._stream.num_targets(start, start + config.batch_size))
            self._counted_step = step
        return _batch(arrays, config.mask_documents, sample_ids_B, self._num_targets, config.batch_size)


def validation_loader(config: DataConfig, num_batches: int, rank: int = 0, world_size: int = 1) -> DataLoader[Batch]:
    """This rank's share of the first ``num_batches`` micro-batches of held-out windows, in order.

    The sources of a mixture are interleaved by their first weights, as long as none of them runs out.

    Raises:
        ConfigError: the micro-batches cannot be distributed evenly; a rank would wait for ever.
    """
    make = ValidationBatches(config)
    num_batches = min(num_batches, make.num_batches)
    if num_batches % world_size:
        raise ConfigError(
            f"validation has {num_batches} micro-batches for {world_size} ranks; set "
            f"run.validation.num_batches to a multiple of {world_size} that the held-out text can fill."
        )
    return _loader(make, range(rank, num_batches, world_size), num_workers=0)


class ValidationBatches:
    """Returns micro-batch ``index`` of the held-out windows; each one is a complete step."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._mixture = Mixture(config.stage_weights[:1])
        self._windows = [
            Windows(Path(directory), "validation", config.seq_len, keep_partial=True)
            for directory in config.directories
        ]
        lengths = np.array([len(windows) for windows in self._windows])
        self._num_windows = bisect_right(
            range(1, int(lengths.sum()) + 1), 0, key=lambda count: int((self._mixture.counts(count) > lengths).any())
        )

    @property
    def num_batches(self) -> int:
        """Number of micro-batches until a source runs out; the last may have fewer rows."""
        return -(-self._num_windows // self._config.micro_batch_size)

    def __call__(self, index: int) -> Batch:
        first = index * self._config.micro_batch_size
        sample_ids_B = np.arange(first, min(first + self._config.micro_batch_size, self._num_windows))
        arrays = read_windows(self._windows, *self._mixture.locate(sample_ids_B))
        return _step(arrays, self._config.mask_documents, sample_ids_B)


def batches(directory: Path, split: str, seq_len: int, micro_batch_size: int, mask_documents: bool) -> Iterator[Batch]:
    """Micro-batches of a whole split in order; every token except the first of a shard is a target exactly once."""
    windows = Windows(directory, split, seq_len, keep_partial=True)
    for first in range(0, len(windows), micro_batch_size):
        window_B = np.arange(first, min(first + micro_batch_size, len(windows)))
        yield _step(windows.read(window_B), mask_documents, window_B)


def _step(arrays: WindowArrays, mask_documents: bool, sample_ids_B: np.ndarray) -> Batch:
    """Make a micro-batch that is a complete step."""
    num_targets = int((arrays.targets_BS != IGNORED).sum())
    return _batch(arrays, mask_documents, sample_ids_B, num_targets, len(sample_ids_B))


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
        num_documents=_num_documents(arrays.document_ids_BS) if mask_documents else None,
    )


def _num_documents(document_ids_BS: np.ndarray) -> int:
    """Number of documents, summed over the windows; ids ascend along a window."""
    return len(document_ids_BS) + int(np.count_nonzero(np.diff(document_ids_BS)))


def _loader(make: Callable[[int], Batch], indices: range, num_workers: int) -> DataLoader[Batch]:
    return DataLoader(
        MicroBatches(make, indices),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_stop_signals,
    )


@atexit.register
def _kill_workers() -> None:
    """End the workers of a process that ends with an error: they ignore the signal with which Python ends them."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def _ignore_stop_signals(worker: int) -> None:
    """Ignore stop signals in a worker: all processes may receive them, and the rank must finish its step."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
