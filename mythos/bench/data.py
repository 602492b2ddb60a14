"""Throughput of the data loader by its number of worker processes."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from mythos.bench.timing import Spread, spread
from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.data.loader import training_loader
from mythos.types import Batch


class Rate(NamedTuple):
    """Tokens per second of the loader alone, over the rounds."""

    num_workers: int
    tokens_per_second: float
    """Median over the rounds; ``low`` and ``high`` bound the middle 80%."""
    low: float
    high: float
    start_seconds: float
    """Time to the first micro-batch: opening the shards and starting the workers."""


def check(workers: list[int], num_batches: int, num_rounds: int) -> None:
    """Check the options of ``measure``.

    Raises:
        ConfigError: a count is too small.
    """
    if min(workers) < 0 or num_batches < 1 or num_rounds < 1:
        raise ConfigError(
            f"--workers is {' '.join(map(str, workers))}, --batches {num_batches} and --rounds {num_rounds}; "
            "workers are 0 or more, the others 1 or more."
        )


def measure(config: RunConfig, workers: list[int], num_batches: int, num_rounds: int) -> list[Rate]:
    """Read ``num_batches`` micro-batches in each round, one number of workers after the other.

    The worker counts do not alternate, because idle workers would read ahead while another count is timed. One round
    is read before the clock starts, which drains the batches that the workers have prefetched.
    """
    num_tokens = num_batches * config.data.micro_batch_size * config.data.seq_len
    rates = []
    for num_workers in workers:
        start = time.perf_counter()
        batches = iter(training_loader(replace(config.data, num_workers=num_workers), config.run.seed))
        next(batches)
        start_seconds = time.perf_counter() - start
        _read(batches, num_batches)
        seconds = [_read(batches, num_batches) for _ in range(num_rounds)]
        tokens_per_second: Spread = spread([num_tokens / each for each in seconds])
        rates.append(Rate(num_workers, *tokens_per_second, start_seconds))
    return rates


def table(rates: list[Rate]) -> str:
    """Table with one line per number of workers."""
    lines = [f"{'workers':>7} {'tokens/s':>14} {'80% of rounds':>32} {'start':>8}"]
    for rate in rates:
        middle = f"{rate.low:,.0f} to {rate.high:,.0f}"
        start = f"{rate.start_seconds:.2f} s"
        lines.append(f"{rate.num_workers:7} {rate.tokens_per_second:14,.0f} {middle:>32} {start:>8}")
    return "\n".join(lines)


def _read(batches: Iterator[Batch], num_batches: int) -> float:
    """Seconds that reading the next micro-batches took."""
    start = time.perf_counter()
    for _ in islice(batches, num_batches):
        pass
    return time.perf_counter() - start
