"""Checks between ranks: bandwidth of collectives, and offsets of the nodes' clocks."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.distributed as dist

from mythos.account.communication import Links
from mythos.account.peak import find_device
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig
from mythos.doctor.finding import Finding, Status
from mythos.parallel.mesh import expert_ranks

_MESSAGE_BYTES: Final = {"cuda": 2**28, "cpu": 2**24}
"""Large enough that latency is negligible."""
_NUM_WARM_UPS: Final = 2
_NUM_MEASURED: Final = 5
_WARNS_BELOW: Final = 0.5
_FAILS_BELOW: Final = 0.1
"""Shares of the expected bandwidth; below a tenth, a slower link is used, such as ethernet instead of InfiniBand."""
_NUM_PINGS: Final = 8
_WARNS_ABOVE_SECONDS: Final = 1.0
"""Logs and metrics are ordered by their times."""
_FAILS_ABOVE_SECONDS: Final = 900.0
"""S3 refuses requests that are 15 minutes off (RequestTimeTooSkewed)."""


def bandwidth(config: RunConfig) -> list[Finding]:
    """Measure an all-reduce over all ranks, and an all-to-all over the ranks that share experts, or over all ranks.

    It is called on every rank. Bandwidth is what each rank sends per second, as NCCL's tests count it (nccl-tests,
    PERFORMANCE.md): 2 (n - 1) / n of the message for an all-reduce, (n - 1) / n for an all-to-all.
    """
    device = _device()
    num_ranks, ep_size = dist.get_world_size(), _ep_size(config)
    groups = [dist.new_group(ranks) for ranks in expert_ranks(num_ranks, ep_size)]
    group = groups[dist.get_rank() // ep_size]
    numel = _MESSAGE_BYTES[device.type] // 4 // ep_size * ep_size
    message_N, received_N = torch.ones(numel, device=device), torch.empty(numel, device=device)
    reduced = _slowest(lambda: dist.all_reduce(message_N), device)
    exchanged = _slowest(lambda: dist.all_to_all_single(received_N, message_N, group=group), device)

    known = find_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    links = None if known is None else Links(known, config.cluster.num_nodes, config.cluster.num_devices)
    sent_by_ring = 4 * numel * 2 * (num_ranks - 1) / num_ranks
    sent_to_peers = 4 * numel * (ep_size - 1) / ep_size
    findings = [
        judge(
            f"all-reduce x{num_ranks}",
            sent_by_ring / reduced,
            None if links is None else sent_by_ring / links.ring_seconds(sent_by_ring, num_ranks, 1),
        )
    ]
    if ep_size > 1:
        expected = None if links is None else sent_to_peers / links.exchange_seconds(sent_to_peers, ep_size)
        findings.append(judge(f"all-to-all x{ep_size}", sent_to_peers / exchanged, expected))
    return findings


def judge(check: str, bytes_per_second: float, expected: float | None) -> Finding:
    """Compare a measured bandwidth with the one that ``mythos plan`` assumes, if there is one."""
    found = f"{bytes_per_second / 1e9:,.2f} GB/s over {dist.get_backend() if dist.is_initialized() else 'no network'}"
    if expected is None:
        return Finding(check=check, status="ok", found=found)
    share = bytes_per_second / expected
    if share >= _WARNS_BELOW:
        return Finding(check=check, status="ok", found=found, expected=f"{expected / 1e9:,.0f} GB/s")
    advice = "NCCL_DEBUG=INFO logs the link that is used; see cluster.network_interface and nvidia-smi topo -m"
    status: Status = "fails" if share < _FAILS_BELOW else "warning"
    return Finding(check=check, status=status, found=found, expected=f"{expected / 1e9:,.0f} GB/s", advice=advice)


def clocks(config: RunConfig) -> list[Finding]:
    """Compare the clocks of all nodes with the first node's; called on every rank, empty for one node."""
    cluster = config.cluster
    if cluster.num_nodes == 1:
        return []
    group = dist.new_group(backend="gloo")
    peers = range(cluster.num_devices, cluster.world_size, cluster.num_devices)
    return [judge_clocks({peer // cluster.num_devices: offset for peer, offset in clock_offsets(peers, group).items()})]


def judge_clocks(offsets: dict[int, float]) -> Finding:
    """Compare the largest offset, in seconds, with the limits."""
    node = max(offsets, key=lambda node: abs(offsets[node]), default=0)
    offset = abs(offsets.get(node, 0.0))
    found = f"node {node} is {offset:.3f} s off the first"
    if offset <= _WARNS_ABOVE_SECONDS:
        return Finding(check="clocks", status="ok", found=found, expected=f"at most {_WARNS_ABOVE_SECONDS:g} s")
    status: Status = "fails" if offset > _FAILS_ABOVE_SECONDS else "warning"
    advice = "synchronise the clocks (chronyc tracking, timedatectl)"
    expected = f"at most {_WARNS_ABOVE_SECONDS:g} s"
    return Finding(check="clocks", status=status, found=found, expected=expected, advice=advice)


def clock_offsets(
    peers: Sequence[int], group: dist.ProcessGroup | None, now: Callable[[], float] = time.time
) -> dict[int, float]:
    """Seconds by which each peer's clock is ahead of rank 0's; empty on other ranks.

    Rank 0 requests the time several times and uses the reply with the shortest round trip, assumed to be halfway
    between request and reply (Cristian 1989, https://doi.org/10.1007/BF01784024).
    """
    message = torch.zeros(1, dtype=torch.float64)
    rank = dist.get_rank()
    offsets = {}
    for peer in peers if rank == 0 else [peer for peer in peers if peer == rank]:
        replies = []
        for _ in range(_NUM_PINGS):
            if rank == 0:
                sent = now()
                dist.send(message, peer, group=group)
                dist.recv(message, peer, group=group)
                received = now()
                replies.append((received - sent, float(message) - (sent + received) / 2))
            else:
                dist.recv(message, 0, group=group)
                message.fill_(now())
                dist.send(message, 0, group=group)
        if rank == 0:
            offsets[peer] = min(replies)[1]
    return offsets


def _slowest(call: Callable[[], object], device: torch.device) -> float:
    """Median seconds of a call on the slowest rank."""
    seconds = []
    for _ in range(_NUM_WARM_UPS + _NUM_MEASURED):
        dist.barrier()
        _synchronize(device)
        start = time.perf_counter()
        call()
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
    slowest = torch.tensor(statistics.median(seconds[_NUM_WARM_UPS:]), device=device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return float(slowest)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device() -> torch.device:
    """The device of the group's backend."""
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if dist.get_backend() == "nccl" else torch.device("cpu")


def _ep_size(config: RunConfig) -> int:
    """Number of ranks that exchange rows: those that share experts, or all ranks without expert parallelism."""
    assert isinstance(config.parallel, DeepSpeedParallel)
    return config.parallel.ep_size if config.parallel.ep_size > 1 else config.cluster.world_size
