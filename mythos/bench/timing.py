"""Time alternating calls, and profile their kernels."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

CALLS_PER_ROUND = 10
"""Calls timed together on a GPU, so that work is queued as in training and launch latency is hidden."""


class Spread(NamedTuple):
    """Median of the rounds, and the range of their middle 80%; milliseconds of one call unless stated otherwise."""

    median_ms: float
    low_ms: float
    high_ms: float


class KernelTime(NamedTuple):
    """Launches and time of one device kernel in a call."""

    name: str
    launches: float
    milliseconds: float


def device_name(device: torch.device) -> str:
    """Name of the device, printed with its times."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def alternate(
    calls: Mapping[str, Callable[[], None]], device: torch.device, num_rounds: int, num_warmup: int
) -> dict[str, Spread]:
    """Time every call in every round, so that a change of the clocks affects all of them."""
    for call in calls.values():
        for _ in range(num_warmup):
            call()
    return {name: spread(each) for name, each in rounds(calls, device, num_rounds).items()}


def rounds(
    calls: Mapping[str, Callable[[], None]],
    device: torch.device,
    num_rounds: int,
    calls_per_round: int = CALLS_PER_ROUND,
) -> dict[str, list[float]]:
    """Milliseconds of every call in every round; on a CPU a round is one call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(num_rounds):
        for name, call in calls.items():
            times[name].append(_milliseconds(call, device, calls_per_round))
    return times


def spread(values: Sequence[float]) -> Spread:
    """The median, and the range of the middle 80%."""
    ordered = sorted(values)
    tenth = len(ordered) // 10
    return Spread(statistics.median(ordered), ordered[tenth], ordered[-1 - tenth])


class Profile(NamedTuple):
    """Device time of one call."""

    span_ms: float
    """Time from the start of the first kernel to the end of the last, idle time included."""
    kernels: list[KernelTime]
    """Kernels, the longest first."""


def by_kernel(call: Callable[[], None], num_calls: int = 5) -> Profile:
    """Profile the CUDA kernels of one call, which must have run before."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        for _ in range(num_calls):
            call()
        torch.cuda.synchronize()
    ranges = [event.time_range for event in record.events() if event.device_type == DeviceType.CUDA]
    span_ms = (max(each.end for each in ranges) - min(each.start for each in ranges)) / num_calls / 1e3
    kernels = [event for event in record.key_averages() if event.device_type == DeviceType.CUDA]
    times = [
        KernelTime(event.key, event.count / num_calls, event.self_device_time_total / num_calls / 1e3)
        for event in kernels
    ]
    return Profile(span_ms, sorted(times, key=lambda each: -each.milliseconds))


def _milliseconds(call: Callable[[], None], device: torch.device, num_calls: int) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(num_calls):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / num_calls
