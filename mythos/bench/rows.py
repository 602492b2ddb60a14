"""Compare alternating operations by time, throughput and memory."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from mythos.bench.timing import Spread, rounds, spread


class Row(NamedTuple):
    """Measurements of one operation."""

    name: str
    time: Spread
    tflops: float | None
    """10^12 floating-point operations per second; None for operations that are not bound by them."""
    ratio: Spread
    """The first row's time over this one's, round by round; above 1 is faster than the first."""
    peak_bytes: int | None
    """Peak bytes allocated above those before the call; None without CUDA, whose allocator records the peak."""

    def as_dict(self) -> dict[str, Any]:
        """The measurements by name, for JSON."""
        ratio = dict(zip(("median", "low", "high"), self.ratio, strict=True))
        return self._asdict() | {"time": self.time._asdict(), "ratio": ratio}


def measure(
    calls: Mapping[str, Callable[[], None]],
    num_flops: int | None,
    device: torch.device,
    num_rounds: int,
    num_warmup: int,
) -> list[Row]:
    """Time calls that do the same work alternately; ratios are relative to the first."""
    for call in calls.values():
        for _ in range(num_warmup):
            call()
    times = rounds(calls, device, num_rounds)
    first = times[next(iter(times))]
    rows = []
    for name, call in calls.items():
        time = spread(times[name])
        rows.append(
            Row(
                name=name,
                time=time,
                tflops=None if num_flops is None else num_flops / time.median_ms / 1e9,
                ratio=spread([first_ms / own_ms for first_ms, own_ms in zip(first, times[name], strict=True)]),
                peak_bytes=_peak_bytes(call, device),
            )
        )
    return rows


def table(rows: list[Row]) -> str:
    """Table with one line per row."""
    lines = [f"{'':22} {'ms':>9} {'80% of rounds':>20} {'TFLOP/s':>8} {'ratio':>7} {'80% of rounds':>16} {'peak':>10}"]
    for row in rows:
        ratio, low, high = row.ratio
        lines.append(
            f"{row.name:22} {row.time.median_ms:9.3f} {f'{row.time.low_ms:.3f} to {row.time.high_ms:.3f}':>20} "
            f"{'' if row.tflops is None else f'{row.tflops:.3g}':>8} {ratio:7.3f} {f'{low:.3f} to {high:.3f}':>16} "
            f"{'' if row.peak_bytes is None else f'{row.peak_bytes / 2**20:.0f} MiB':>10}".rstrip()
        )
    return "\n".join(lines)


def _peak_bytes(call: Callable[[], None], device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
