"""Detects ranks that are slow themselves, rather than waiting for others."""

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
"""Least excess over the median of the ranks; less is noise of the operating system."""
_NUM_WARMUP_STEPS = 2


class Stragglers(StepCallback):
    """Compares, with the training metrics, how long each rank computes before it first waits for others.

    This is the time of the loader plus that of the forward of a step's first micro-batch, averaged over the steps since
    the last comparison. The forward is omitted where the layout communicates in it (expert-parallel ranks, ZeRO 3). The
    first steps of a process are left out, in which ranks compile, allocate and start their loaders at their own pace.
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
        self.num_warmup_steps = _NUM_WARMUP_STEPS
        """Steps that are still to be left out."""
        self.num_steps = 0
        self.forward_start: _Mark | None = None
        self.forwards: list[tuple[_Mark, _Mark]] = []
        self.reported: set[tuple[int, str]] = set()
        """Rank and host of those that are slow and have been reported."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.hosts = of_every_rank(socket.gethostname())

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.loader_seconds += self.loader.last_seconds
            self.forward_start = None if self.has_exchange_in_forward else _Mark(pl_module.device)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if self.forward_start is not None:
            self.forwards.append((self.forward_start, _Mark(pl_module.device)))
            self.forward_start = None

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        if self.num_warmup_steps > 0:
            self.num_warmup_steps -= 1
            self.loader_seconds, self.forwards = 0.0, []
            return
        self.num_steps += 1
        if not self.config.tracking.is_record_step(result.step, self.config.run.num_steps):
            return
        seconds = self.loader_seconds + sum(end.seconds_since(start) for start, end in self.forwards)
        own = torch.zeros(trainer.world_size, dtype=torch.float64)
        own[trainer.global_rank] = seconds / self.num_steps
        self.loader_seconds, self.num_steps, self.forwards = 0.0, 0, []
        by_rank = sum_over_ranks(trainer, {"seconds": own})["seconds"].tolist()
        if trainer.world_size > 1:
            ratio = max(by_rank) / max(median_low(by_rank), 1e-9)
            self.metrics.write(trainer, {records.SLOWEST_RANK: ratio}, result.step)
            self._report(trainer, by_rank, result.step)

    def state_dict(self) -> dict[str, Any]:
        """Times are not saved: after a resume they are averaged over the steps since."""
        return {"reported": sorted(self.reported)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reported = {(rank, host) for rank, host in state_dict["reported"]}

    def _report(self, trainer: pl.Trainer, by_rank: list[float], step: int) -> None:
        """Report the ranks that have become slow; one that has recovered may be reported again."""
        limit = self.config.run.straggler_ratio
        slow = {(rank, self.hosts[rank]) for rank in stragglers(by_rank, limit)}
        median = median_low(by_rank)
        for rank, host in sorted(slow - self.reported):
            ratio = by_rank[rank] / max(median, 1e-9)
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
                f"rank {rank} on {host} computes {by_rank[rank]:.3f} s of a step, {ratio:.1f} times "
                f"the median of {median:.3f} s over ranks.",
            )
        self.reported = slow


def stragglers(seconds_by_rank: list[float], limit: float | None) -> set[int]:
    """Return the ranks that take more than ``limit`` times the (lower) median; none without a limit."""
    if limit is None:
        return set()
    median = median_low(seconds_by_rank)
    longest = max(limit * median, median + _MIN_EXCESS_SECONDS)
    return {rank for rank, seconds in enumerate(seconds_by_rank) if seconds > longest}


class _Mark:
    """A point in time; on CUDA an event, whose time is read after the device has reached it."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        self.time = time.perf_counter()
        if self.event is not None:
            self.event.record()

    def seconds_since(self, start: "_Mark") -> float:
        if self.event is None or start.event is None:
            return self.time - start.time
        return start.event.elapsed_time(self.event) / 1000
