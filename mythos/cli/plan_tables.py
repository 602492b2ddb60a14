"""The tables of ``mythos plan``: memory, traffic and speed of an estimate, and layouts that fit."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mythos.account.estimate import MARGIN, Memory
from mythos.account.peak import Device
from mythos.account.plan import MemoryPlan, plan
from mythos.account.search import Layout
from mythos.cli.costs_tables import short_count
from mythos.config.load import load
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.recipes import RECIPES
from mythos.config.run import RunConfig

_GIB = 2**30


def report(config: RunConfig, estimate: MemoryPlan, num_tokens: float, price_per_hour: float | None) -> str:
    """Return the tables of memory, traffic, time and cost."""
    parts = [_headline(config, estimate), _memory_table(estimate.memory)]
    if estimate.traffic:
        parts.append(_traffic_table(estimate))
    parts.append(_speed_table(estimate, num_tokens, price_per_hour))
    return "\n\n".join(parts)


def search_table(layouts: Sequence[Layout], num_tokens: float) -> str:
    """Return a table with one line for each layout."""
    rows = [("layout", "micro-batch", "remat", "GiB", "step, s", "tokens/s", "MFU", "days")]
    for layout in layouts:
        estimate = layout.plan
        row = (
            _layout(layout.run),
            str(layout.run.data.micro_batch_size),
            _remat(estimate),
            f"{estimate.memory.total / _GIB:.1f}",
            f"{estimate.seconds.total:.3g}",
            f"{estimate.tokens_per_second:,.0f}",
            f"{estimate.mfu:.3f}",
            f"{estimate.days(num_tokens):.3g}",
        )
        rows.append(row)
    return _table(rows)


def recipes_table(device: Device) -> str:
    """Return a table with one line for each recipe on this kind of device, with the time and cost of all its tokens."""
    columns = "experiment", "parameters", "tokens", "devices", "micro-batch", "remat", "GiB", "tokens/s", "days"
    rows = [(*columns, f"{device.name}-hours")]
    for recipe in RECIPES:
        config = load([f"experiment={recipe.name}"])
        estimate, num_tokens = plan(config, device), tokens_of(config)
        row = (
            recipe.name,
            short_count(estimate.num_parameters),
            short_count(num_tokens),
            str(estimate.world_size),
            str(config.data.micro_batch_size),
            _remat(estimate),
            f"{estimate.memory.total / _GIB:.1f}" + ("" if estimate.fits else " (too many)"),
            f"{estimate.tokens_per_second:,.0f}",
            f"{estimate.days(num_tokens):.2g}",
            f"{estimate.device_hours(num_tokens):,.0f}",
        )
        rows.append(row)
    return _table(rows)


def tokens_of(config: RunConfig) -> int:
    """Tokens of the whole run."""
    return config.run.num_steps * config.data.batch_size * config.data.seq_len


def as_dict(estimate: MemoryPlan, num_tokens: float, price_per_hour: float | None) -> dict[str, Any]:
    """Return all numbers of an estimate, in bytes and seconds."""
    content = asdict(estimate)
    content["memory"] |= {"allocated": estimate.memory.allocated, "total": estimate.memory.total}
    content["seconds"]["total"] = estimate.seconds.total
    content |= {"fits": estimate.fits, "tokens_per_second": estimate.tokens_per_second}
    device_hours = estimate.device_hours(num_tokens)
    content |= {"tokens": num_tokens, "days": estimate.days(num_tokens), "device_hours": device_hours}
    return content if price_per_hour is None else content | {"cost": price_per_hour * device_hours}


def _headline(config: RunConfig, estimate: MemoryPlan) -> str:
    needed, has = estimate.memory.total / _GIB, estimate.memory_bytes / _GIB
    devices = f"{config.cluster.num_nodes} x {config.cluster.num_devices} {estimate.device.name}"
    verdict = "fits" if estimate.fits else "does not fit"
    return (
        f"{estimate.num_parameters / 1e9:,.3g}B parameters on {devices}: {_layout(config)}, remat {_remat(estimate)}\n"
        f"{verdict}: {needed:.1f} of {has:.1f} GiB on the fullest rank"
    )


def _layout(config: RunConfig) -> str:
    parallel = config.parallel
    if not isinstance(parallel, DeepSpeedParallel):
        return "single"
    text = f"ZeRO {parallel.zero_stage}, ep {parallel.ep_size}"
    return f"{text}, offloaded optimizer" if parallel.offload_optimizer else text


def _remat(estimate: MemoryPlan) -> str:
    return estimate.parallel.remat + (" offloaded" if estimate.parallel.offload_states else "")


def _memory_table(memory: Memory) -> str:
    margin = memory.total - memory.context - memory.allocated
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "fp32 copies of the optimizer": memory.master_weights,
        "moments": memory.moments,
        "gathered weights": memory.gathered,
        "buckets, gradient accumulators": memory.buckets,
        "activations": memory.activations,
        "tensors at the peak": memory.allocated,
        f"margin of the estimate, {MARGIN:.0%}": margin,
        "CUDA, NCCL, allocator": memory.context,
        "needed": memory.total,
        "(during the optimizer's step)": memory.standing + memory.optimizer_step,
        "(in host memory)": memory.host,
    }
    rows = [(name, f"{number / _GIB:,.2f}") for name, number in parts.items() if number]
    return _table([("memory of the fullest rank", "GiB"), *rows])


def _traffic_table(estimate: MemoryPlan) -> str:
    rows = [
        (
            f"{part.kind}, {part.of}",
            part.collective,
            f"{part.num_ranks:,}",
            f"{part.bytes / 1e9:,.2f}",
            f"{part.seconds:.3f}",
        )
        for part in estimate.traffic
    ]
    return _table([("sent by each rank in a step", "as", "ranks", "GB", "s"), *rows])


def _speed_table(estimate: MemoryPlan, num_tokens: float, price_per_hour: float | None) -> str:
    seconds, device_hours = estimate.seconds, estimate.device_hours(num_tokens)
    rows = [
        (f"forward and backward, at {estimate.efficiency:.2f} of peak, s", f"{seconds.forward_backward:.3f}"),
        ("optimizer, s", f"{seconds.optimizer:.3f}"),
        ("exposed communication, s", f"{seconds.exposed_communication:.3f}"),
        ("step, s", f"{seconds.total:.3f}"),
        ("tokens/s", f"{estimate.tokens_per_second:,.0f}"),
        ("MFU", f"{estimate.mfu:.3f}"),
        (f"days for {num_tokens:.3g} tokens", f"{estimate.days(num_tokens):,.3g}"),
        (f"{estimate.device.name}-hours of all devices", f"{device_hours:,.1f}"),
    ]
    if price_per_hour is not None:
        rows.append((f"cost, at {price_per_hour:g} for an hour of one device", f"{price_per_hour * device_hours:,.2f}"))
    depth = f"T={estimate.num_loops:g} k={estimate.num_grad_loops:g}"
    return _table([(f"a step of {estimate.tokens_per_step:,} tokens, {depth}", ""), *rows])


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Align columns, the first to the left and the others to the right, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
