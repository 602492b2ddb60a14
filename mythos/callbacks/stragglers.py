"""Ranks that are slower than the others by themselves, not because they wait."""

import socket
import time
from statistics import median_low
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.callbacks.base import StepCallback, StepResult
from mythos.callbacks.loader_clock import LoaderClock
from mythos.callbacks.metrics import MetricsWriter, announce
from mythos.callbacks.ranks import sum_over_ranks
from mythos.config import records
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig
from mythos.parallel.processes import of_every_rank

_MIN_EXCESS_SECONDS = 0.02
"""By which a step must take longer than the median: below, it is the operating system's noise."""


class Stragglers(StepCallback):
    """Compares, at every training record, how long ranks take before they first wait for each other.

    That is the time of the loader and, unless the layout exchanges something in the forward (experts over ranks,
    ZeRO 3), of the forward of a step's first micro-batch; both of the mean step since the last record.
    """

    def __init__(self, config: RunConfig, metrics: MetricsWriter, loader: LoaderClock) -> None:
        self.config = config
        self.metrics = metrics
        self.loader = loader
        match config.parallel:
            case DeepSpeedParallel(zero_stage=stage, ep_size=ep_size):
                self.has_exchange_in_forward = stage == 3 or ep_size > 1
            case _:
                self.has_exchange_in_forward = False
        self.hosts: list[str] = []
        self.loader_seconds = 0.0
        self.num_steps = 0
        self.begun: _Mark | None = None
        self.forwards: list[tuple[_Mark, _Mark]] = []
        self.said: set[int] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.hosts = of_every_rank(socket.gethostname())

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.loader_seconds += self.loader.last_seconds
            self.begun = None if self.has_exchange_in_forward else _Mark(pl_module.device)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if self.begun is not None:
            self.forwards.append((self.begun, _Mark(pl_module.device)))
            self.begun = None

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        self.num_steps += 1
        if not self.config.tracking.is_record_step(result.step, self.config.run.num_steps):
            return
        seconds = self.loader_seconds + sum(end.seconds_since(start) for start, end in self.forwards)
        mine = torch.zeros(trainer.world_size, dtype=torch.float64)
        mine[trainer.global_rank] = seconds / self.num_steps
        self.loader_seconds, self.num_steps, self.forwards = 0.0, 0, []
        by_rank = sum_over_ranks(trainer, {"seconds": mine})["seconds"].tolist()
        if trainer.world_size > 1:
            ratio = max(by_rank) / max(median_low(by_rank), 1e-9)
            self.metrics.write(trainer, {records.SLOWEST_RANK: ratio}, result.step)
            self._report(trainer, by_rank, result.step)

    def _report(self, trainer: pl.Trainer, by_rank: list[float], step: int) -> None:
        """Report the ranks that have become slow; one that has recovered may be reported again."""
        limit = self.config.run.straggler_ratio
        slow = stragglers(by_rank, limit)
        middle = median_low(by_rank)
        for rank in sorted(slow - self.said):
            ratio = by_rank[rank] / max(middle, 1e-9)
            entry = {
                records.alarm("straggler"): 1.0,
                records.alarm_figure("straggler"): ratio,
                records.alarm_limit("straggler"): float(limit or 0),
            }
            self.metrics.write(trainer, entry, step)
            announce(
                trainer,
                "alarm",
                f"straggler at step {step}",
                f"rank {rank} on {self.hosts[rank]} takes {by_rank[rank]:.3f} s of a step by itself, {ratio:.1f} times "
                f"the ranks' median of {middle:.3f} s.",
            )
        self.said = slow


def stragglers(seconds_by_rank: list[float], limit: float | None) -> set[int]:
    """Ranks that take more than ``limit`` times the (lower) median, and noticeably so; none without a limit."""
    if limit is None:
        return set()
    middle = median_low(seconds_by_rank)
    longest = max(limit * middle, middle + _MIN_EXCESS_SECONDS)
    return {rank for rank, seconds in enumerate(seconds_by_rank) if seconds > longest}


class _Mark:
    """A moment on the device's clock; on CUDA it is read without waiting once the device has passed it."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        self.time = time.perf_counter()
        if self.event is not None:
            self.event.record()

    def seconds_since(self, start: "_Mark") -> float:
        if self.event is None or start.event is None:
            return self.time - start.time
        return start.event.elapsed_time(self.event) / 1000
