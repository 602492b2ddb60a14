"""``mythos plan``: memory, traffic and speed of a run on devices that need not be there."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mythos.account.estimate import MARGIN, Memory
from mythos.account.plan import Plan
from mythos.account.search import Layout
from mythos.config.base import ConfigError
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig

_GIB = 2**30


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "plan",
        help="estimate memory, traffic and speed on given devices",
        description="Estimate a run from its configuration and a device's data sheet; nothing is built or measured.",
        epilog="Example: mythos plan model=30b optim=adamw parallel=zero1 cluster.num_nodes=16 cluster.num_devices=8 "
        "data.batch_size=1024 data.micro_batch_size=1 run.validation.num_batches=128 --search --tokens 1e12",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    parser.add_argument("--device", default="H100", help="H100, H200, B200, ... or what torch calls it (H100)")
    parser.add_argument("--tokens", type=float, metavar="D", help="also say how many days D tokens take")
    parser.add_argument("--efficiency", type=float, metavar="X", help="share of peak in forward and backward")
    parser.add_argument("--search", action="store_true", help="list the layouts that fit, best first")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="layouts that --search prints (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    parser.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the estimate, and what would make it fit; 0 if it does, or if the search found a layout that does.

    Raises:
        ConfigError: for a configuration that cannot run, or a device that is not known.
    """
    from mythos.account.peak import named_device
    from mythos.account.plan import plan
    from mythos.account.search import advice, search
    from mythos.config.load import load

    _check(arguments)
    config, device = load(arguments.overrides, arguments.config_dir), named_device(arguments.device)
    estimate = plan(config, device, arguments.efficiency)
    needs_search = arguments.search or not estimate.fits
    found = search(config, device, arguments.efficiency) if needs_search else []
    print(report(config, estimate, arguments.tokens))
    if not estimate.fits:
        print(f"\n{advice(config, estimate, found)}")
    if arguments.search and found:
        print(f"\n{len(found)} layouts fit\n{search_table(found[: arguments.top], arguments.tokens)}")
    if arguments.json is not None:
        from mythos.files import write_text

        content = as_dict(estimate, arguments.tokens)
        if arguments.search:
            content["layouts"] = [
                {"overrides": layout.changes(config), **as_dict(layout.plan, arguments.tokens)} for layout in found
            ]
        write_text(arguments.json, json.dumps(content, indent=1))
    return 0 if estimate.fits or (arguments.search and found) else 1


def report(config: RunConfig, estimate: Plan, num_tokens: float | None) -> str:
    """Tables of memory, traffic and time."""
    parts = [_headline(config, estimate), _memory_table(estimate.memory)]
    if estimate.traffic:
        parts.append(_traffic_table(estimate))
    parts.append(_speed_table(estimate, num_tokens))
    return "\n\n".join(parts)


def search_table(found: Sequence[Layout], num_tokens: float | None) -> str:
    """One line for each layout."""
    header = ("layout", "micro-batch", "remat", "GiB", "step, s", "tokens/s", "MFU")
    rows = [header + (("days",) if num_tokens else ())]
    for layout in found:
        estimate = layout.plan
        row = (
            _layout(layout.run),
            str(layout.run.data.micro_batch_size),
            _remat(estimate),
            f"{estimate.memory.total / _GIB:.1f}",
            f"{estimate.seconds.total:.3g}",
            f"{estimate.tokens_per_second:,.0f}",
            f"{estimate.mfu:.3f}",
        )
        rows.append(row + ((f"{estimate.days(num_tokens):.3g}",) if num_tokens else ()))
    return _table(rows)


def as_dict(estimate: Plan, num_tokens: float | None) -> dict[str, Any]:
    """All numbers of an estimate, in bytes and seconds."""
    content = asdict(estimate)
    content["memory"] |= {"allocated": estimate.memory.allocated, "total": estimate.memory.total}
    content["seconds"]["total"] = estimate.seconds.total
    content |= {"fits": estimate.fits, "tokens_per_second": estimate.tokens_per_second}
    if num_tokens:
        content["days"] = estimate.days(num_tokens)
    return content


def _check(arguments: argparse.Namespace) -> None:
    for name in ("tokens", "efficiency", "top"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name}: {value:g} was given; give a positive number.")
    if arguments.efficiency is not None and arguments.efficiency > 1:
        raise ConfigError(f"--efficiency: {arguments.efficiency:g} was given; it is a share of the peak, at most 1.")


def _headline(config: RunConfig, estimate: Plan) -> str:
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


def _remat(estimate: Plan) -> str:
    return estimate.parallel.remat + (" offloaded" if estimate.parallel.offload_states else "")


def _memory_table(memory: Memory) -> str:
    margin = memory.total - memory.context - memory.allocated
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "fp32 copies of the optimizer": memory.master_weights,
        "moments": memory.moments,
        "gathered weights": memory.gathered,
        "communication buckets": memory.buckets,
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


def _traffic_table(estimate: Plan) -> str:
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


def _speed_table(estimate: Plan, num_tokens: float | None) -> str:
    seconds = estimate.seconds
    rows = [
        (f"forward and backward, at {estimate.efficiency:.2f} of peak, s", f"{seconds.forward_backward:.3f}"),
        ("optimizer, s", f"{seconds.optimizer:.3f}"),
        ("communication that nothing hides, s", f"{seconds.exposed_communication:.3f}"),
        ("step, s", f"{seconds.total:.3f}"),
        ("tokens/s", f"{estimate.tokens_per_second:,.0f}"),
        ("MFU", f"{estimate.mfu:.3f}"),
    ]
    if num_tokens:
        rows.append((f"days for {num_tokens:.3g} tokens", f"{estimate.days(num_tokens):,.3g}"))
    depth = f"T={estimate.num_loops:g} k={estimate.num_grad_loops:g}"
    return _table([(f"a step of {estimate.tokens_per_step:,} tokens, {depth}", ""), *rows])


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns two spaces apart, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
