"""The tables of ``mythos costs``."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mythos.account.activations import activation_bytes
from mythos.account.flops import forward_flops, run_flops, training_flops
from mythos.account.memory import state_bytes
from mythos.account.parameters import count_parameters
from mythos.config.base import ConfigError
from mythos.config.model import ModelConfig
from mythos.config.run import RunConfig

_SIZES_LOOPS = (8, 4)
"""T and k of the table of all models."""
_REMAT: dict[str, dict[str, Any]] = {
    "remat none": {"remat": "none", "offload_states": False},
    "remat block": {"remat": "block", "offload_states": False},
    "remat loop": {"remat": "loop", "offload_states": False},
    "remat loop, offloaded": {"remat": "loop", "offload_states": True},
}


def run(args: argparse.Namespace) -> int:
    """Print the report and return the exit status.

    Raises:
        ConfigError: for a configuration that cannot run.
    """
    from mythos.config.load import default_config_dir, load

    if args.sizes and args.overrides:
        raise ConfigError(
            f"--sizes: {' '.join(args.overrides)} was given beside it, but it prints every model as its file "
            "specifies it; remove one of the two."
        )
    if args.sizes:
        print(sizes_report(args.config_dir or default_config_dir()))
    else:
        print(run_report(load(args.overrides, args.config_dir)))
    return 0


def run_report(config: RunConfig) -> str:
    """Return the tables of parameters, FLOPs per token, training state and activations of one run."""
    tables = [_parameters_table(config), _flops_table(config), _memory_table(config), _activations_table(config)]
    return "\n\n".join(tables)


def sizes_report(config_dir: Path) -> str:
    """Return one line for each YAML of ``config_dir/model``, smallest first, at the model's longest sequence."""
    paths = list((config_dir / "model").glob("*.yaml"))
    if not paths:
        raise ConfigError(f"--config-dir: {config_dir} holds no model/*.yaml; give a folder like conf/.")
    from mythos.config.load import load_model

    models = {path.stem: load_model(path) for path in paths}
    by_size = sorted(models.items(), key=lambda item: count_parameters(item[1]).total)
    num_loops, num_grad_loops = _SIZES_LOOPS
    header = (
        "model",
        "parameters",
        "active",
        "embedding",
        "sequence",
        f"forward T={num_loops}",
        f"training T={num_loops} k={num_grad_loops}",
    )
    return _table([header, *[_size_row(name, model) for name, model in by_size]])


def short(number: float) -> str:
    """Format a number with three digits and an SI prefix: 405_900_000 is 406M."""
    power = 0
    while number >= 999.5:
        number /= 1000
        power += 1
    return f"{number:#.3g}".rstrip(".") + ("", "k", "M", "G", "T", "P", "E")[power]


def short_count(number: int) -> str:
    """Format like ``short``, but with B for a billion, as is usual for model sizes."""
    return short(number).replace("G", "B")


def _size_row(name: str, model: ModelConfig) -> tuple[str, ...]:
    num_loops, num_grad_loops = _SIZES_LOOPS
    counts = count_parameters(model)
    return (
        name,
        short_count(counts.total),
        short_count(count_parameters(model, active=True).total),
        f"{counts.embedding / counts.total:.1%}",
        f"{model.max_seq_len:,}",
        short(forward_flops(model, model.max_seq_len, num_loops).total),
        short(training_flops(model, model.max_seq_len, num_loops, num_grad_loops).total),
    )


def _parameters_table(config: RunConfig) -> str:
    counts, active_counts = (count_parameters(config.model, config.halting, active=active) for active in (False, True))
    numbers = asdict(counts) | {"total": counts.total}
    active_numbers = asdict(active_counts) | {"total": active_counts.total}
    rows = [
        (part, f"{number:,}", f"{number / counts.total:.1%}", f"{active_numbers[part]:,}")
        for part, number in numbers.items()
        if part != "halting" or number
    ]
    return _table([("parameters", "all", "share", "active"), *rows])


def _flops_table(config: RunConfig) -> str:
    model, seq_len = config.model, config.data.seq_len
    mean, num_grad_loops = config.depth.mean, config.depth.grad_loops
    costs = {f"forward T={num_loops:g}": forward_flops(model, seq_len, num_loops) for num_loops in (1, mean, 2 * mean)}
    costs[f"training T={mean:g} k={num_grad_loops}"] = run_flops(config, mean, num_grad_loops)
    rows = [(name, short(flops.matrices), short(flops.attention), short(flops.total)) for name, flops in costs.items()]
    return _table([(f"FLOPs per token, sequence {seq_len:,}", "matrices", "attention", "all"), *rows])


def _memory_table(config: RunConfig) -> str:
    state = state_bytes(config.model, config.optim, config.halting)
    numbers = asdict(state) | {"total": state.total}
    names = {"optimizer": f"optimizer ({config.optim.kind})"}
    rows = [(names.get(part, part), f"{short(number)}B") for part, number in numbers.items()]
    return _table([("fp32 state, all devices together", "bytes"), *rows])


def _activations_table(config: RunConfig) -> str:
    from mythos.loop.policy import mean_depth

    data, (_, mean_grad_loops) = config.data, mean_depth(config.depth)
    rows = []
    for name, changes in _REMAT.items():
        parallel = replace(config.parallel, **changes)
        activations = activation_bytes(
            config.model, parallel, data.micro_batch_size, data.seq_len, mask_documents=data.mask_documents
        )
        numbers = (activations.fixed, activations.per_loop, activations.peak(mean_grad_loops))
        rows.append((name, *(f"{short(number)}B" for number in numbers)))
    title = f"activations, micro-batch of {data.micro_batch_size}, {config.parallel.precision}"
    return _table([(title, "once", "each loop", f"k={mean_grad_loops:.3g}"), *rows])


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Align columns, the first to the left and numbers to the right, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)
