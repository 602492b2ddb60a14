"""Throughput with a clock that the test controls: only timed steps count."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from helpers import run_config

from mythos.account.flops import loop_flops, outer_flops, training_flops
from mythos.callbacks import throughput as subject
from mythos.callbacks.base import StepGradients, StepResult, StopVotes
from mythos.callbacks.loader_clock import LoaderClock
from mythos.callbacks.throughput import Throughput
from mythos.config import records
from mythos.config.run import RunConfig
from mythos.config.tracking import ProfileConfig
from mythos.types import Observation

FETCH = "[_TrainingEpochLoop].train_dataloader_next"
TOKENS = 96
OPTIONS = ("run.num_steps=20", "run.validation.every=6", "run.checkpoint.every=9", "tracking.log_every=4")


class World:
    """Runs a ``Throughput`` through steps of two micro-batches with its own clock."""

    def __init__(self, config: RunConfig, device: str = "cpu", num_ranks: int = 1) -> None:
        self.now, self.syncs, self.written = 100.0, [], {}
        self.is_profiled = False
        metrics = SimpleNamespace(write=lambda trainer, metrics, step: self.written.update({step: metrics}))
        self.clock = LoaderClock(lambda: self.now)
        self.callback = Throughput(config, metrics, self.clock)
        reduce = lambda tensor, reduce_op: tensor * num_ranks if reduce_op == "sum" else tensor  # noqa: E731
        self.trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=reduce), world_size=num_ranks)
        self.module = SimpleNamespace(device=torch.device(device))

    def step(self, step: int, wait: float, work: float, loops: float = 3, grad_loops: float = 2, after: float = 0):
        share = Observation(loops, grad_loops, torch.zeros(()), {}, TOKENS // 2, None, None, None)
        for _ in range(2):
            self.clock.start(FETCH)
            self.now += wait / 2
            self.clock.stop(FETCH)
            self.callback.on_train_batch_start(self.trainer, self.module, None, 0)
            self.now += work / 2
        result = StepResult(
            step=step,
            observations=(share, share),
            gradients=StepGradients(1.0, 1.0, {}),
            votes=StopVotes(0, 0),
            is_skipped=False,
            is_profiled=self.is_profiled,
        )
        self.callback.on_step_end(self.trainer, self.module, result)
        self.now += after


@pytest.fixture
def config() -> RunConfig:
    return run_config("model=debug", "schedule.num_warmup_steps=1", *OPTIONS)


def test_rates_exclude_warmup_validation_and_saving(config: RunConfig) -> None:
    world = World(config)
    world.step(1, wait=50, work=500)
    assert world.written == {}
    for step in range(2, 5):
        world.step(step, wait=0.25, work=0.75)
    assert world.written[4] == pytest.approx(
        {
            records.TOKENS_PER_SECOND: TOKENS,
            records.MEAN_TOKENS_PER_SECOND: TOKENS,
            records.LOOPS_PER_SECOND: 3 * TOKENS,
            records.MEAN_LOOPS_PER_SECOND: 3 * TOKENS,
            records.DATA_WAIT_SECONDS: 0.75,
            records.DATA_WAIT_SHARE: 0.25,
        }
    )
    world.now += 1000  # whatever follows a record
    world.step(5, wait=0, work=2)
    world.step(6, wait=0, work=2, after=3000)  # a validation
    world.step(7, wait=1, work=1, loops=7)
    world.step(8, wait=1, work=1, loops=7)
    assert world.written[8] == pytest.approx(
        {
            records.TOKENS_PER_SECOND: TOKENS / 2,
            records.MEAN_TOKENS_PER_SECOND: 7 * TOKENS / 11,
            records.LOOPS_PER_SECOND: 5 * TOKENS / 2,
            records.MEAN_LOOPS_PER_SECOND: (9 + 20) * TOKENS / 11,
            records.DATA_WAIT_SECONDS: 2,
            records.DATA_WAIT_SHARE: 0.25,
        }
    )
    world.step(9, wait=0, work=1, after=500)  # a checkpoint
    for step in (10, 11, 12):
        world.step(step, wait=0, work=1)
    assert world.written[12][records.TOKENS_PER_SECOND] == pytest.approx(TOKENS)


def test_profiled_steps_are_not_counted(config: RunConfig) -> None:
    profile = ProfileConfig(start=3, num_steps=1)
    world = World(replace(config, tracking=replace(config.tracking, profile=profile)))
    world.step(1, wait=0, work=9)
    world.step(2, wait=0, work=2)
    world.is_profiled = True
    world.step(3, wait=70, work=700)
    world.is_profiled = False
    world.now += 40  # writing the trace
    world.step(4, wait=0, work=2)
    assert world.written[4][records.TOKENS_PER_SECOND] == pytest.approx(TOKENS / 2)


def test_the_device_is_synchronised_at_records_and_where_others_synchronise(config: RunConfig, monkeypatch) -> None:
    waits = patch_cuda(monkeypatch)
    world = World(config, device="cuda")
    for step in range(1, 13):
        waits.append(f"step {step}")
        world.step(step, wait=0, work=1)
    waited = [int(before.split()[1]) for before, wait in pairwise(waits) if wait == "wait"]
    assert waited == [1, 4, 6, 8, 9, 12]


@pytest.mark.parametrize("num_ranks", [1, 4])
def test_mfu_is_model_flops_over_the_peak_of_all_devices(config: RunConfig, monkeypatch, num_ranks: int) -> None:
    patch_cuda(monkeypatch)
    world = World(config, device="cuda", num_ranks=num_ranks)
    world.step(1, wait=0, work=9)
    for step, (loops, grad_loops) in enumerate([(3, 2), (8, 4), (1, 1)], start=2):
        world.step(step, wait=0, work=0.5, loops=loops, grad_loops=grad_loops)
    seq_len = config.data.seq_len
    flops = TOKENS * sum(training_flops(config.model, seq_len, *d).total for d in [(3, 2), (8, 4), (1, 1)])
    peak = 67e12 if config.parallel.precision == "fp32" else 989e12
    assert world.written[4][records.MFU] == pytest.approx(flops / 1.5 / peak)
    assert world.written[4][records.MEAN_MFU] == world.written[4][records.MFU]
    assert world.written[4][records.TOKENS_PER_SECOND] == pytest.approx(num_ranks * 3 * TOKENS / 1.5)
    assert world.written[4][records.PEAK_ALLOCATED] == 3.0
    assert world.written[4][records.PEAK_RESERVED] == 5.0


def test_training_only_the_gate_counts_forwards_of_every_exit(monkeypatch) -> None:
    patch_cuda(monkeypatch)
    gate = ("halting=gate", "depth=fixed", "depth.num_loops=4", "depth.num_grad_loops=4")
    config = run_config("model=debug", "schedule.num_warmup_steps=1", "parallel.precision=bf16", *OPTIONS, *gate)
    world = World(config, device="cuda")
    for step in range(1, 5):
        world.step(step, wait=0, work=1, loops=4, grad_loops=4)
    model, seq_len = config.model, config.data.seq_len
    gate = 2 * config.halting.hidden_dim * (model.dim + 1)  # forward, and the gradient of its weights
    flops = TOKENS * (outer_flops(model, seq_len, num_exits=4).total + 4 * loop_flops(model, seq_len).total + 8 * gate)
    assert world.written[4][records.MFU] == pytest.approx(flops / 989e12)


def patch_cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Simulate an H200 with 3 GiB allocated and 5 GiB reserved; returns the list of synchronisations."""
    waits: list[str] = []
    cuda = subject.torch.cuda
    monkeypatch.setattr(cuda, "synchronize", lambda device: waits.append("wait"))
    monkeypatch.setattr(cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    monkeypatch.setattr(cuda, "max_memory_reserved", lambda device: 5 * 2**30)
    monkeypatch.setattr(cuda, "reset_peak_memory_stats", lambda device: None)
    tensor = torch.tensor
    monkeypatch.setattr(subject.torch, "tensor", lambda data, dtype, device: tensor(data, dtype=dtype))
    return waits
