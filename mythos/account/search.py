"""Layouts of a run on its devices: ZeRO stage, ep_size, micro-batch and recomputation, the best first."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from mythos.account.estimate import POLICIES
from mythos.account.peak import Device
from mythos.account.plan import MemoryPlan, plan
from mythos.account.recipes import largest_recipe_that_fits
from mythos.config.base import difference, encode
from mythos.config.model import MoEConfig
from mythos.config.parallel import DeepSpeedParallel, ParallelConfig
from mythos.config.run import RunConfig


@dataclass(frozen=True, slots=True)
class Layout:
    """A run with another layout, and its estimate."""

    run: RunConfig
    plan: MemoryPlan

    @property
    def _rank(self) -> tuple[float, int, int, int]:
        """Sort key: the fastest first; then the lower stage, the larger micro-batch, the smaller memory."""
        stage = self.run.parallel.zero_stage if isinstance(self.run.parallel, DeepSpeedParallel) else 0
        speed = float(f"{self.plan.tokens_per_second:.3g}")
        return (-speed, stage, -self.run.data.micro_batch_size, self.plan.memory.total)

    def changes(self, origin: RunConfig) -> list[str]:
        """Overrides that turn ``origin`` into this layout."""
        return changes(origin, self.run)


def search(run: RunConfig, device: Device, efficiency: float | None = None) -> list[Layout]:
    """Return every layout of ``run`` that fits, best first; ``offload_optimizer`` only if nothing fits without it.

    Nodes, devices, batch, precision and compilation stay as configured (ZeRO 3 does not compile blocks).
    """
    for offload_optimizer in (None, True):
        candidates = [Layout(other, plan(other, device, efficiency)) for other in layouts(run, offload_optimizer)]
        if fitting := [layout for layout in candidates if layout.plan.fits]:
            return sorted(fitting, key=lambda layout: layout._rank)
    return []


def remedy(run: RunConfig, fitting: list[Layout]) -> list[str]:
    """Return the fewest overrides that make ``run`` fit, the fastest of equals; empty if no layout fits."""
    return fewest_changes(run, [layout.run for layout in fitting])


def fewest_changes(run: RunConfig, others: list[RunConfig]) -> list[str]:
    """Return the fewest overrides that turn ``run`` into one of the others; of equals, those of the first one.

    ``remat=auto`` is kept: it finds the policy of the layout, or a cheaper one.
    """
    policy = ("parallel.remat=", "parallel.offload_states=") if run.parallel.remat == "auto" else ()
    lists = ([line for line in changes(run, other) if not line.startswith(policy)] for other in others)
    return min(lists, key=len, default=[])


def changes(origin: RunConfig, other: RunConfig) -> list[str]:
    """Overrides that turn ``origin`` into another layout of it."""
    new = [line.split(": ", 1) for line in difference(encode(origin), encode(other))]
    return [f"{path}={values.rsplit(' -> ', 1)[1].lower()}" for path, values in new]


def advice(run: RunConfig, estimate: MemoryPlan, fitting: list[Layout]) -> str:
    """Advise how to make a run fit: with overrides, or with more devices, a smaller run or the recipe that fits."""
    if fitting:
        return f"would fit with: {' '.join(remedy(run, fitting))}"
    standing, available = estimate.memory.standing / 2**30, estimate.memory_bytes / 2**30
    text = (
        f"no layout on these devices fits; weights, gradients and optimiser alone take {standing:.1f} of "
        f"{available:.1f} GiB"
    )
    if run.optim.kind == "muon_adamw":
        text += "; optim=adamw lets ZeRO shard them over ranks"
    elif not isinstance(run.parallel, DeepSpeedParallel):
        text += "; parallel=zero3 with more cluster.num_devices shards them over ranks"
    text += "; otherwise use more devices, shorter sequences or fewer loops with gradients"
    recipe = largest_recipe_that_fits(run, estimate.memory_bytes, estimate.device.has_fused_experts)
    return f"{text}, or a recipe that fits: experiment={recipe}" if recipe else text


def layouts(run: RunConfig, offload_optimizer: bool | None = None) -> Iterator[RunConfig]:
    """Yield every layout that the configuration's own checks accept."""
    rank_batch_size = run.data.batch_size // run.cluster.world_size
    for parallel in _parallel_configs(run, offload_optimizer):
        for micro_batch_size in _divisors(rank_batch_size):
            data = replace(run.data, micro_batch_size=micro_batch_size)
            for remat, offload_states in POLICIES:
                candidate = replace(parallel, remat=remat, offload_states=offload_states)
                try:
                    yield replace(run, data=data, parallel=candidate)
                except ValueError:  # the configuration refuses this layout with this optimiser or halting
                    continue


def _parallel_configs(run: RunConfig, offload_optimizer: bool | None) -> Iterator[ParallelConfig]:
    """Yield the combinations of ZeRO stage and ep_size that the configuration accepts."""
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
            except ValueError:  # the configuration refuses this stage with this precision or offloading
                continue


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
