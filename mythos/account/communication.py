"""Bytes that a rank sends in one optimiser step, by kind, and how long its links take for them.

Collectives of n ranks on S bytes are counted as rings: a reduce-scatter or an all-gather sends S (n - 1) / n from each
rank, an all-reduce twice that (Patarasu and Yuan 2009). An exchange of experts sends each row once.
"""

from dataclasses import dataclass
from typing import Literal

from mythos.account.memory import Elements, rank_elements
from mythos.account.peak import Device
from mythos.config.model import MoEConfig
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig

LINK_EFFICIENCY = 0.8
"""Of a link's data-sheet speed that large collectives reach. nccl-tests' bus bandwidth on 8 H100 is 360 GB/s of 450
in a ring, and about 40 GB/s of 50 for each 400 Gb/s adapter; an assumption for every other device."""

_FP32_BYTES = 4
_LIVE_ELEMENTS = 1_000_000_000

Kind = Literal["gradients", "weights after the step", "weights in use", "experts forward", "experts backward"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """What one rank sends in one optimiser step for one purpose."""

    kind: Kind
    collective: Literal["all-reduce", "reduce-scatter", "all-gather", "all-to-all"]
    num_ranks: int
    bytes: float
    seconds: float
    """At the device's links, with nothing in the way and nothing hidden behind it."""


def communication(run: RunConfig, device: Device, num_loops: float, num_grad_loops: float) -> list[Traffic]:
    """All traffic of one step with these mean depths; empty for one process."""
    parallel, cluster = run.parallel, run.cluster
    if not isinstance(parallel, DeepSpeedParallel) or cluster.world_size == 1:
        return []
    links = Links(device, cluster.num_nodes, cluster.num_devices)
    elements = rank_elements(run.model, parallel, cluster.world_size)
    found = [*_gradients(run, parallel, elements, links), *_weights(run, parallel, elements, links)]
    if parallel.zero_stage == 3:
        found += _gathers(run, parallel, elements, links, num_loops, num_grad_loops)
    core = run.model.core_ffn
    if parallel.ep_size > 1 and isinstance(core, MoEConfig):
        found += _experts(run, parallel, core, links, num_loops, num_grad_loops)
    return found


@dataclass(frozen=True, slots=True)
class Links:
    """The ways between ranks: inside a node, and one network adapter for each device."""

    device: Device
    num_nodes: int
    num_devices: int

    def ring_seconds(self, num_bytes: float, num_ranks: int, stride: int) -> float:
        """A ring over ``num_ranks`` ranks that lie ``stride`` apart; its ranks in a node share their adapters."""
        in_node = max(1, min(num_ranks, self.num_devices // stride))
        speeds = [self.device.link_bytes_per_second(False)] if in_node > 1 else []
        if num_ranks > in_node:
            speeds.append(in_node * self.device.link_bytes_per_second(True))
        return num_bytes / (LINK_EFFICIENCY * min(speeds)) if speeds else 0.0

    def exchange_seconds(self, num_bytes: float, num_ranks: int) -> float:
        """Neighbours send each other equal shares of ``num_bytes``, within the node and beyond at the same time."""
        in_node = min(num_ranks, self.num_devices)
        inside = num_bytes * (in_node - 1) / (num_ranks - 1) / self.device.link_bytes_per_second(False)
        outside = num_bytes * (num_ranks - in_node) / (num_ranks - 1) / self.device.link_bytes_per_second(True)
        return max(inside, outside) / LINK_EFFICIENCY


def _parts(run: RunConfig, parallel: DeepSpeedParallel, elements: Elements) -> list[tuple[int, int, int]]:
    """Parameters, ranks that hold the same ones, and how far apart these lie: dense ones, then experts."""
    world_size, ep_size = run.cluster.world_size, parallel.ep_size
    parts = [(elements.dense, world_size, 1), (elements.experts, world_size // ep_size, ep_size)]
    return [(number, ranks, stride) for number, ranks, stride in parts if number and ranks > 1]


def _weight_width(parallel: DeepSpeedParallel) -> int:
    return 2 if parallel.precision == "bf16_weights" else _FP32_BYTES


def _gradients(run: RunConfig, parallel: DeepSpeedParallel, elements: Elements, links: Links) -> list[Traffic]:
    """Once a step up to stage 1, which keeps whole gradients; after every micro-batch from stage 2 on.

    DeepSpeed's stages 1 and 2 reduce whole buckets to all ranks unless ``use_multi_rank_bucket_allreduce`` is off.
    """
    stage = parallel.zero_stage
    is_scattered = stage == 3 or (stage > 0 and not parallel.extra.get("use_multi_rank_bucket_allreduce", True))
    times = run.num_micro_batches if stage >= 2 else 1
    found = []
    for number, ranks, stride in _parts(run, parallel, elements):
        sent = times * (1 if is_scattered else 2) * _weight_width(parallel) * number * (ranks - 1) / ranks
        found.append(
            Traffic(
                kind="gradients",
                collective="reduce-scatter" if is_scattered else "all-reduce",
                num_ranks=ranks,
                bytes=sent,
                seconds=links.ring_seconds(sent, ranks, stride),
            )
        )
    return found


def _weights(run: RunConfig, parallel: DeepSpeedParallel, elements: Elements, links: Links) -> list[Traffic]:
    """Stages 1 and 2 send the updated slices to all ranks."""
    if parallel.zero_stage not in (1, 2):
        return []
    found = []
    for number, ranks, stride in _parts(run, parallel, elements):
        sent = _weight_width(parallel) * number * (ranks - 1) / ranks
        found.append(_gather("weights after the step", sent, ranks, stride, links))
    return found


def _gathers(
    run: RunConfig,
    parallel: DeepSpeedParallel,
    elements: Elements,
    links: Links,
    num_loops: float,
    num_grad_loops: float,
) -> list[Traffic]:
    """Stage 3 gathers a layer before each use, unless all of the model may stay at once."""
    stays = elements.local <= int(parallel.extra.get("stage3_max_live_parameters", _LIVE_ELEMENTS))
    num_again = 0.0 if parallel.remat == "none" else num_grad_loops
    uses = 1.0 if stays else num_loops + num_grad_loops + num_again
    core_share = run.model.num_core_layers / run.model.num_layers
    found = []
    for index, (number, ranks, stride) in enumerate(_parts(run, parallel, elements)):
        times = uses if index else core_share * uses + (1 - core_share) * (1 if stays else 2)
        sent = run.num_micro_batches * times * _weight_width(parallel) * number * (ranks - 1) / ranks
        found.append(_gather("weights in use", sent, ranks, stride, links))
    return found


def _gather(kind: Kind, sent: float, ranks: int, stride: int, links: Links) -> Traffic:
    seconds = links.ring_seconds(sent, ranks, stride)
    return Traffic(kind=kind, collective="all-gather", num_ranks=ranks, bytes=sent, seconds=seconds)


def _experts(
    run: RunConfig,
    parallel: DeepSpeedParallel,
    core: MoEConfig,
    links: Links,
    num_loops: float,
    num_grad_loops: float,
) -> list[Traffic]:
    """Each row goes to its expert in fp32 and comes back in the products' width, in every pass; gradients go back."""
    ep_size, data = parallel.ep_size, run.data
    num_rows = (
        core.num_active * data.micro_batch_size * data.seq_len * run.num_micro_batches * run.model.num_core_layers
    )
    width = _FP32_BYTES if parallel.precision == "fp32" else 2
    one_pass = num_rows * run.model.dim * (_FP32_BYTES + width) * (ep_size - 1) / ep_size
    num_forwards = num_loops + (0.0 if parallel.remat == "none" else num_grad_loops)
    kinds: list[tuple[Kind, float]] = [("experts forward", num_forwards), ("experts backward", num_grad_loops)]
    return [
        Traffic(
            kind=kind,
            collective="all-to-all",
            num_ranks=ep_size,
            bytes=one_pass * num_passes,
            seconds=links.exchange_seconds(one_pass * num_passes, ep_size),
        )
        for kind, num_passes in kinds
    ]
