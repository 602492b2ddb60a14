"""Throughput, model FLOPs utilisation and memory; only training steps are timed.

Time is measured in intervals. An interval begins when the loader is asked for a step's first micro-batch. It ends,
after a device synchronisation, where metrics are written or where validation or a save synchronises anyway. Warm-up
steps, profiled steps and the time between intervals are not counted.
"""

from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import torch

from mythos.account.flops import run_flops
from mythos.account.peak import peak_flops
from mythos.callbacks.base import Metrics, StepCallback, StepResult
from mythos.callbacks.loader_clock import LoaderClock
from mythos.callbacks.metrics import MetricsWriter
from mythos.config import records
from mythos.config.run import RunConfig
from mythos.types import Observation

NUM_WARMUP_STEPS = 1
"""Steps after each start that are not timed, because they compile, allocate and select kernels."""
NUM_COMPILED_WARMUP_STEPS = 3
"""The same under ``parallel.compile``, which compiles loops with and without gradients separately."""
_GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Amount of work and its time, of one rank or of all."""

    tokens: float = 0.0
    loops: float = 0.0
    """Sum over tokens of the number of loops."""
    flops: float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    """Part of ``seconds`` spent waiting for the loader."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            tokens=self.tokens + other.tokens,
            loops=self.loops + other.loops,
            flops=self.flops + other.flops,
            seconds=self.seconds + other.seconds,
            wait_seconds=self.wait_seconds + other.wait_seconds,
        )


class Throughput(StepCallback):
    """Writes speed and memory beside the training metrics."""

    def __init__(self, config: RunConfig, metrics: MetricsWriter, loader: LoaderClock) -> None:
        self.config = config
        self.metrics = metrics
        self.loader = loader
        self.num_warmup_left = NUM_COMPILED_WARMUP_STEPS if config.parallel.compile else NUM_WARMUP_STEPS
        self.started_at: float | None = None
        self.waited_before = 0.0
        self.interval = Work()
        self.since_record = Work()
        self.since_start = Work()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.started_at is None:
            self.started_at = self.loader.asked_at
            self.waited_before = self.loader.seconds - self.loader.last_seconds

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> StepResult | None:
        for observation in result.observations:
            self.interval += self._work(observation)
        is_recorded = self.config.tracking.is_record_step(result.step, self.config.run.num_steps)
        is_timed = self.num_warmup_left == 0 and not result.is_profiled
        if not is_timed or is_recorded or self._stops_after(result.step):
            if module.device.type == "cuda" and not result.is_profiled:  # a profile shows the host running ahead
                torch.cuda.synchronize(module.device)
            self._end_interval(is_timed)
        self.num_warmup_left = max(0, self.num_warmup_left - 1)
        if not is_recorded:
            return None
        speed = self._speed(trainer, module.device) | _memory(trainer, module.device)
        if speed:
            self.metrics.write(trainer, speed, result.step)
        return replace(result, speed=speed)

    def _stops_after(self, step: int) -> bool:
        """Whether something else than training follows that synchronises the device."""
        run, profile = self.config.run, self.config.tracking.profile
        opens_profile = profile is not None and step + 1 == profile.start
        return step % run.validation.every == 0 or step % run.checkpoint.every == 0 or opens_profile

    def _end_interval(self, is_timed: bool) -> None:
        if is_timed:
            assert self.started_at is not None
            seconds, waited = self.loader.clock() - self.started_at, self.loader.seconds - self.waited_before
            self.since_record += self.interval + Work(seconds=seconds, wait_seconds=waited)
        self.interval, self.started_at = Work(), None

    def _work(self, observation: Observation) -> Work:
        """Work of one micro-batch; FLOPs exclude recomputation."""
        tokens, loops = observation.num_tokens, observation.num_loops
        flops = run_flops(self.config, loops, observation.num_grad_loops)
        return Work(tokens=tokens, loops=tokens * loops, flops=tokens * flops.total)

    def _speed(self, trainer: pl.Trainer, device: torch.device) -> Metrics:
        """Rates since the last metrics and since the start; empty if no step has been timed yet."""
        if self.since_record.seconds == 0:
            return {}
        work, self.since_record = _over_ranks(self.since_record, trainer, device), Work()
        self.since_start += work
        rates = {
            records.TOKENS_PER_SECOND: work.tokens / work.seconds,
            records.MEAN_TOKENS_PER_SECOND: self.since_start.tokens / self.since_start.seconds,
            records.LOOPS_PER_SECOND: work.loops / work.seconds,
            records.MEAN_LOOPS_PER_SECOND: self.since_start.loops / self.since_start.seconds,
            records.DATA_WAIT_SECONDS: work.wait_seconds,
            records.DATA_WAIT_SHARE: work.wait_seconds / work.seconds,
        }
        is_cuda = device.type == "cuda"
        peak = peak_flops(torch.cuda.get_device_name(device), self.config.parallel.precision) if is_cuda else None
        if peak is not None:
            rates[records.MFU] = work.flops / work.seconds / (peak * trainer.world_size)
            rates[records.MEAN_MFU] = self.since_start.flops / self.since_start.seconds / (peak * trainer.world_size)
        return rates


def _over_ranks(work: Work, trainer: pl.Trainer, device: torch.device) -> Work:
    """Work of all ranks, with the time of the slowest."""
    sums = torch.tensor([work.tokens, work.loops, work.flops], dtype=torch.float64, device=device)
    slowest = torch.tensor([work.seconds, work.wait_seconds], dtype=torch.float64, device=device)
    tokens, loops, flops = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
    seconds, wait_seconds = trainer.strategy.reduce(slowest, reduce_op="max").tolist()
    return Work(tokens=tokens, loops=loops, flops=flops, seconds=seconds, wait_seconds=wait_seconds)


def _memory(trainer: pl.Trainer, device: torch.device) -> Metrics:
    """Peaks of the allocator since the last metrics, the largest over ranks; empty without CUDA."""
    if device.type != "cuda":
        return {}
    peaks = [torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)]
    torch.cuda.reset_peak_memory_stats(device)
    largest = torch.tensor(peaks, dtype=torch.float64, device=device)
    allocated, reserved = trainer.strategy.reduce(largest, reduce_op="max").tolist()
    return {records.PEAK_ALLOCATED: allocated / _GIB, records.PEAK_RESERVED: reserved / _GIB}
