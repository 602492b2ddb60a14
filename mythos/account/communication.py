"""Bytes that a rank sends in one optimiser step, by kind, and the time that its links take.

Collectives of n ranks on S bytes are counted as rings: each rank sends S (n - 1) / n in a reduce-scatter or an
all-gather, and twice that in an all-reduce (Patarasu and Yuan 2009). Expert-parallel ranks send each token or row once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mythos.account.memory import LIVE_ELEMENTS, rank_elements
from mythos.account.peak import Device
from mythos.config.base import FP32_BYTES
from mythos.config.model import MoEConfig
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig

LINK_EFFICIENCY = 0.8
"""Share of a link's data-sheet speed that large messages reach. Users of DeepEP report 160 GB/s of 200 within a node of
H800 and 44 of 50 between nodes of H200 (deepseek-ai/DeepEP#16, #155, #493); an assumption for everything else."""


Ring = Literal["all-reduce", "reduce-scatter", "all-gather"]
Kind = Literal["gradients", "weights after the step", "weights in use", "rows forward", "rows backward"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Bytes that one rank sends in one optimiser step for one purpose."""

    kind: Kind
    of: Literal["dense", "experts"]
    """Parameters of the routed experts, or all others."""
    collective: Ring | Literal["all-to-all"]
    num_ranks: int
    bytes: float
    seconds: float
    """At the speed of the device's links, without contention and without overlap."""


def communication(run: RunConfig, device: Device, num_loops: float, num_grad_loops: float) -> list[Traffic]:
    """Return all traffic of one step with these mean loop counts; empty for one process."""
    parallel, cluster = run.parallel, run.cluster
    if not isinstance(parallel, DeepSpeedParallel) or cluster.world_size == 1:
        return []
    links = Links(device, cluster.num_nodes, cluster.num_devices)
    traffic = list(_parameters(run, parallel, links, num_loops, num_grad_loops))
    core = run.model.core_ffn
    if parallel.ep_size > 1 and isinstance(core, MoEConfig):
        traffic += _experts(run, parallel, core, links, num_loops, num_grad_loops)
    return traffic


@dataclass(frozen=True, slots=True)
class Links:
    """Links between ranks: inside a node, and one network adapter for each device."""

    device: Device
    num_nodes: int
    num_devices: int

    def ring_seconds(self, num_bytes: float, num_ranks: int, stride: int) -> float:
        """Time of a ring over ``num_ranks`` ranks with this stride; its ranks in one node share their adapters."""
        in_node = max(1, min(num_ranks, self.num_devices // stride))
        speeds = [self.device.link_bytes_per_second(False)] if in_node > 1 else []
        if num_ranks > in_node:
            speeds.append(in_node * self.device.link_bytes_per_second(True))
        return num_bytes / (LINK_EFFICIENCY * min(speeds)) if speeds else 0.0

    def exchange_seconds(self, num_bytes: float, num_ranks: int) -> float:
        """Time in which neighbours exchange equal shares of ``num_bytes``, within and between nodes concurrently."""
        in_node = min(num_ranks, self.num_devices)
        inside = num_bytes * (in_node - 1) / (num_ranks - 1) / self.device.link_bytes_per_second(False)
        outside = num_bytes * (num_ranks - in_node) / (num_ranks - 1) / self.device.link_bytes_per_second(True)
        return max(inside, outside) / LINK_EFFICIENCY


@dataclass(frozen=True, slots=True)
class _Part:
    """Parameters of one rank of which several ranks hold copies or slices."""

    of: Literal["dense", "experts"]
    num_elements: int
    num_ranks: int
    stride: int
    """Difference between the numbers of neighbouring ranks."""
    links: Links

    def traffic(self, kind: Kind, collective: Ring, num_bytes: float) -> Traffic:
        """Return the traffic of a ring over ``num_bytes`` bytes; the part that a rank holds itself is not sent."""
        num_bytes *= (2 if collective == "all-reduce" else 1) * (self.num_ranks - 1) / self.num_ranks
        seconds = self.links.ring_seconds(num_bytes, self.num_ranks, self.stride)
        return Traffic(
            kind=kind, of=self.of, collective=collective, num_ranks=self.num_ranks, bytes=num_bytes, seconds=seconds
        )


def _parts(run: RunConfig, parallel: DeepSpeedParallel, links: Links) -> list[_Part]:
    """Dense parameters and a rank's experts, each if more than one rank holds them."""
    world_size, ep_size = run.cluster.world_size, parallel.ep_size
    elements = rank_elements(run.model, parallel, world_size, run.halting)
    parts = [
        _Part("dense", elements.dense, world_size, 1, links),
        _Part("experts", elements.experts, world_size // ep_size, ep_size, links),
    ]
    return [part for part in parts if part.num_elements and part.num_ranks > 1]


def _parameters(
    run: RunConfig, parallel: DeepSpeedParallel, links: Links, num_loops: float, num_grad_loops: float
) -> Iterator[Traffic]:
    """Traffic of gradients, and of weights that other ranks update.

    Up to stage 1 gradients are reduced once a step, from stage 2 on after every micro-batch. DeepSpeed's stages 1 and 2
    reduce whole buckets to all ranks unless ``use_multi_rank_bucket_allreduce`` is off. Stages 1 and 2 send updated
    slices to all ranks; stage 3 gathers a layer before each use, unless the whole model may stay gathered.
    """
    stage, width = parallel.zero_stage, 2 if parallel.precision == "bf16_weights" else FP32_BYTES
    is_scattered = stage == 3 or (stage > 0 and not parallel.extra.get("use_multi_rank_bucket_allreduce", True))
    num_reductions = run.num_micro_batches if stage >= 2 else 1
    reduction: Ring = "reduce-scatter" if is_scattered else "all-reduce"
    parts = _parts(run, parallel, links)
    num_local = sum(part.num_elements for part in parts)
    stays_gathered = num_local <= int(parallel.extra.get("stage3_max_live_parameters", LIVE_ELEMENTS))
    for part in parts:
        yield part.traffic("gradients", reduction, num_reductions * width * part.num_elements)
        if stage in (1, 2):
            yield part.traffic("weights after the step", "all-gather", width * part.num_elements)
        elif stage == 3:
            uses = 1.0 if stays_gathered else _uses(run, part.of, num_loops, num_grad_loops)
            yield part.traffic("weights in use", "all-gather", run.num_micro_batches * uses * width * part.num_elements)


def _uses(run: RunConfig, of: str, num_loops: float, num_grad_loops: float) -> float:
    """Uses of a parameter in one micro-batch: forward, backward, recomputation; two outside of the core."""
    in_core = num_loops + num_grad_loops + (0.0 if run.parallel.remat == "none" else num_grad_loops)
    share = 1.0 if of == "experts" else run.model.num_core_layers / run.model.num_layers
    return share * in_core + (1 - share) * 2


def _experts(
    run: RunConfig,
    parallel: DeepSpeedParallel,
    core: MoEConfig,
    links: Links,
    num_loops: float,
    num_grad_loops: float,
) -> list[Traffic]:
    """Traffic of expert parallelism: on few ranks all tokens and the sums of their outputs, else routed rows."""
    ep_size, data = parallel.ep_size, run.data
    num_tokens = data.micro_batch_size * data.seq_len * run.num_micro_batches * run.model.num_core_layers
    width = FP32_BYTES if parallel.precision == "fp32" else 2
    if ep_size <= core.num_active:
        num_sent: float = num_tokens * (ep_size - 1)
    else:
        num_sent = core.num_active * num_tokens * (ep_size - 1) / ep_size
    one_loop = 2 * num_sent * run.model.dim * width
    num_forwards = num_loops + (0.0 if parallel.remat == "none" else num_grad_loops)
    kinds: list[tuple[Kind, float]] = [("rows forward", num_forwards), ("rows backward", num_grad_loops)]
    return [
        Traffic(
            kind=kind,
            of="experts",
            collective="all-to-all",
            num_ranks=ep_size,
            bytes=one_loop * num_executions,
            seconds=links.exchange_seconds(one_loop * num_executions, ep_size),
        )
        for kind, num_executions in kinds
    ]
