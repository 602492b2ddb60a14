"""Layouts of a run on the devices that it has: ZeRO stage, ep_size, micro-batch and recomputation, the best first."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from mythos.account.estimate import POLICIES
from mythos.account.peak import Device
from mythos.account.plan import Plan, plan
from mythos.config.base import difference, encode
from mythos.config.model import MoEConfig
from mythos.config.parallel import DeepSpeedParallel, ParallelConfig
from mythos.config.run import RunConfig


@dataclass(frozen=True, slots=True)
class Layout:
    """A run with another layout, and its estimate."""

    run: RunConfig
    plan: Plan

    @property
    def _rank(self) -> tuple[float, int, int, int]:
        """Fastest first; among equals the lower stage, the larger micro-batch, the smaller memory."""
        stage = self.run.parallel.zero_stage if isinstance(self.run.parallel, DeepSpeedParallel) else 0
        speed = float(f"{self.plan.tokens_per_second:.3g}")
        return (-speed, stage, -self.run.data.micro_batch_size, self.plan.memory.total)

    def changes(self, origin: RunConfig) -> list[str]:
        """Overrides that lead here from ``origin``."""
        new = [line.split(": ", 1) for line in difference(encode(origin), encode(self.run))]
        return [f"{path}={values.rsplit(' -> ', 1)[1].lower()}" for path, values in new]


def search(run: RunConfig, device: Device, efficiency: float | None = None) -> list[Layout]:
    """Every layout of ``run`` that fits, best first; ``offload_optimizer`` is tried where nothing fits without it.

    Nodes, devices, batch, precision and whether blocks are compiled stay (under ZeRO 3 they are not compiled).
    """
    for offload_optimizer in (None, True):
        tried = [Layout(other, plan(other, device, efficiency)) for other in layouts(run, offload_optimizer)]
        if found := [layout for layout in tried if layout.plan.fits]:
            return sorted(found, key=lambda layout: layout._rank)
    return []


def remedy(run: RunConfig, found: list[Layout]) -> list[str]:
    """The fewest overrides that make ``run`` fit, the fastest of these; empty if nothing is known to fit."""
    return min((layout.changes(run) for layout in found), key=len, default=[])


def advice(run: RunConfig, estimate: Plan, found: list[Layout]) -> str:
    """What would make a run fit that does not: overrides, or what to give up."""
    if found:
        return f"would fit with: {' '.join(remedy(run, found))}"
    standing, has = estimate.memory.standing / 2**30, estimate.memory_bytes / 2**30
    text = (
        f"no layout on these devices fits; weights, gradients and optimiser alone take {standing:.1f} of {has:.1f} GiB"
    )
    if run.optim.kind == "muon_adamw":
        text += "; optim=adamw lets ZeRO share them among ranks"
    elif not isinstance(run.parallel, DeepSpeedParallel):
        text += "; parallel=zero3 with more cluster.num_devices shares them among ranks"
    return f"{text}; otherwise more devices, shorter sequences or fewer passes with gradients are needed"


def layouts(run: RunConfig, offload_optimizer: bool | None = None) -> Iterator[RunConfig]:
    """Every layout that the configuration's own checks let through."""
    portion = run.data.batch_size // run.cluster.world_size
    for parallel in _spreads(run, offload_optimizer):
        for micro_batch_size in _divisors(portion):
            data = replace(run.data, micro_batch_size=micro_batch_size)
            for remat, offload_states in POLICIES:
                how = replace(parallel, remat=remat, offload_states=offload_states)
                try:
                    yield replace(run, data=data, parallel=how)
                except ValueError:  # of the configuration: this optimiser, or halting, has no such layout
                    continue


def _spreads(run: RunConfig, offload_optimizer: bool | None) -> Iterator[ParallelConfig]:
    """Stages and sizes of expert groups."""
    parallel, core = run.parallel, run.model.core_ffn
    if not isinstance(parallel, DeepSpeedParallel):
        if offload_optimizer is None:
            yield parallel
        return
    largest = math.gcd(core.num_experts, run.cluster.world_size) if isinstance(core, MoEConfig) else 1
    stages: tuple[Literal[0, 1, 2, 3], ...] = (0, 1, 2, 3)
    for zero_stage in stages:
        for ep_size in _divisors(largest):
            try:
                yield replace(
                    parallel,
                    zero_stage=zero_stage,
                    ep_size=ep_size,
                    compile=parallel.compile and zero_stage < 3,
                    offload_optimizer=parallel.offload_optimizer if offload_optimizer is None else offload_optimizer,
                )
            except ValueError:  # this precision, or offloading, has no such stage
                continue


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
