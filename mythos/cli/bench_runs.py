"""The measurements of ``mythos bench``; dependencies are imported where they are used."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any


def run_model(arguments: argparse.Namespace) -> int:
    """Print times, rates, parts and memory of the variants and, if requested, step time by loop count."""
    from mythos.bench.model import (
        BenchOptions,
        arms_of,
        build,
        check_options,
        device_of,
        measure,
        measure_apart,
        time_by_num_loops,
        time_drawn_steps,
    )
    from mythos.bench.model_table import arms_table, draws_line, line_table
    from mythos.bench.timing import device_name

    arms = arms_of(arguments.words, arguments.compare, arguments.naive, arguments.balanced, arguments.config_dir)
    options = BenchOptions(
        arguments.rounds,
        arguments.steps,
        arguments.warmup,
        arguments.documents,
        arguments.kernels > 0,
        not arguments.no_parts,
    )
    check_options(options, arguments.num_loops, arguments.num_drawn_steps, arguments.apart)
    device = device_of(next(iter(arms.values())).config)
    record: dict[str, Any] = _about(device) | {"options": options._asdict(), "arms": []}
    print(f"{device_name(device)}, torch {record['torch']}, {' '.join(arguments.words)}", flush=True)
    steps = {} if arguments.apart else {name: build(arm, options) for name, arm in arms.items()}
    results = measure_apart(arms, options) if arguments.apart else measure(steps, options)
    print(arms_table(results, arguments.kernels), flush=True)
    for arm, result in zip(arms.values(), results, strict=True):
        record["arms"].append(result.as_dict() | {"config": asdict(arm.config)})
    first = next(iter(steps.values()), None)
    if arguments.num_loops and first is not None:
        line = time_by_num_loops(first, sorted(arguments.num_loops), options)
        print(f"\n{line_table(line)}", flush=True)
        record["line"] = line.as_dict()
    if arguments.num_drawn_steps and first is not None:
        draws = time_drawn_steps(first, next(iter(arms.values())).config, arguments.num_drawn_steps)
        print(f"\n{draws_line(draws)}")
        record["draws"] = draws._asdict()
    _write(arguments.json, record)
    return 0


def run_memory(arguments: argparse.Namespace) -> int:
    """Print one line for each loop count, and the growth per loop in state tensors."""
    from mythos.config.load import load

    config = load(arguments.overrides, arguments.config_dir)

    import torch

    from mythos.bench.memory import measure, state_bytes

    points = measure(config, sorted(arguments.num_loops))
    state = state_bytes(config)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {' '.join(arguments.overrides)}")
    print(f"one state tensor (fp32): {state / 2**20:.1f} MiB")
    first = points[0]
    for point in points:
        line = f"T = {point.num_loops:<3} peak {point.peak_bytes / 2**20:10.1f} MiB"
        if point is not first:
            growth = (point.peak_bytes - first.peak_bytes) / (point.num_loops - first.num_loops) / state
            line += f"   {growth:6.3f} more state tensors per loop than at T = {first.num_loops}"
        print(line)
    _write(arguments.json, {"state_bytes": state, "points": [point._asdict() for point in points]})
    return 0


def run_moe(arguments: argparse.Namespace) -> int:
    """Print a table for each shape: times, rate, ratio to the dense layer, memory."""
    from mythos.bench.moe import SHAPES, Setting, check, measure, parse_shape, table

    device, precision = _device_and_precision(arguments.precision)
    about: dict[str, Any] = _about(device)
    shapes = [parse_shape(text) for text in arguments.shapes] or list(SHAPES)
    settings = [
        Setting(shape, arguments.tokens, device, precision, arguments.compile, arguments.share) for shape in shapes
    ]
    for setting in settings:
        check(setting, arguments.arms, arguments.kernels > 0)
    compiled = "compiled" if arguments.compile else "eager"
    print(f"{about['device']}, torch {about['torch']}, {arguments.tokens} tokens, {precision}, {compiled}")
    rows = {}
    for setting in settings:
        arms = measure(setting, arguments.arms, arguments.rounds, arguments.warmup, arguments.kernels > 0)
        print(f"\n{setting.shape}\n{table(arms, arguments.kernels)}", flush=True)
        rows[str(setting.shape)] = [arm.as_dict() for arm in arms]
    about |= {"num_tokens": arguments.tokens, "precision": precision, "compile": arguments.compile}
    _write(arguments.json, about | {"shapes": rows})
    return 0


def run_attention(arguments: argparse.Namespace) -> int:
    """Print a table for each shape, causal and with documents, and why an arm cannot run."""
    import torch

    from mythos.bench.attention import ARMS, SHAPES, check, compare, parse_shape
    from mythos.bench.rows import table
    from mythos.bench.step import random_documents

    device, precision = _device_and_precision(arguments.precision)
    shapes = [parse_shape(text) for text in arguments.shapes] or list(SHAPES)
    arms = arguments.arms or list(ARMS)
    check(arms, arguments.documents)
    record: dict[str, Any] = _about(device) | {"precision": precision, "mean_document": arguments.documents}
    print(f"{record['device']}, torch {record['torch']}, {precision}")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for shape in shapes:
        size = (shape.batch, shape.seq_len)
        masks = {"causal": None, "documents": random_documents(size, arguments.documents, device)}
        for mask, document_ids_BS in masks.items():
            if mask == "documents" and not arguments.documents:
                continue
            comparison = compare(shape, document_ids_BS, arms, device, dtype, arguments.rounds, arguments.warmup)
            print(f"\n{shape}, {mask}\n{table(comparison.rows)}", flush=True)
            for name, why in comparison.refused.items():
                print(f"{name}: cannot run here: {why[:90]}")
            rows = [row.as_dict() for row in comparison.rows]
            record.setdefault("shapes", {}).setdefault(str(shape), {})[mask] = {
                "rows": rows,
                "refused": comparison.refused,
            }
    _write(arguments.json, record)
    return 0


def run_loss(arguments: argparse.Namespace) -> int:
    """Print time and memory of each implementation of the loss."""
    from mythos.bench.loss import Shape, check, compare
    from mythos.bench.rows import table

    device, precision = _device_and_precision(arguments.precision)
    shape = Shape(arguments.tokens, arguments.dim, arguments.vocab)
    check(shape, arguments.chunks)
    about = _about(device) | {"precision": precision}
    print(f"{about['device']}, torch {about['torch']}, {precision}, {shape}")
    rows = compare(shape, arguments.chunks, device, precision == "bf16", arguments.rounds, arguments.warmup)
    print(table(rows))
    _write(arguments.json, about | {"shape": shape._asdict(), "rows": [row.as_dict() for row in rows]})
    return 0


def run_optimizer(arguments: argparse.Namespace) -> int:
    """Print times of optimiser steps and their shares of a training step."""
    from mythos.bench.model import device_of, overrides_of
    from mythos.bench.optimizer import compare, table
    from mythos.config.load import load

    config = load(overrides_of(arguments.words), arguments.config_dir)
    device = device_of(config)
    about = _about(device)
    print(f"{about['device']}, torch {about['torch']}, {' '.join(arguments.words)}")
    comparison = compare(config, device, arguments.documents, arguments.rounds, arguments.warmup)
    print(table(comparison, arguments.tokens))
    rows = [
        row.as_dict()
        | {"state_bytes": comparison.state_bytes[row.name]}
        | {"shares": {str(tokens): comparison.share(row, tokens) for tokens in arguments.tokens}}
        for row in comparison.rows
    ]
    one = {"tokens": comparison.tokens_of_micro_batch, "time": comparison.micro_batch._asdict()}
    _write(arguments.json, about | {"config": asdict(config), "micro_batch": one, "rows": rows})
    return 0


def run_data(arguments: argparse.Namespace) -> int:
    """Print the loader's rate by number of workers."""
    from mythos.config.load import load

    config = load(arguments.overrides, arguments.config_dir)

    from mythos.bench.data import check, measure, table

    check(arguments.workers, arguments.batches, arguments.rounds)
    data = config.data
    print(f"{', '.join(data.directories)}: micro-batches of {data.micro_batch_size} times {data.seq_len} tokens")
    rates = measure(config, arguments.workers, arguments.batches, arguments.rounds)
    print(table(rates))
    _write(arguments.json, {"data": asdict(data), "rates": [rate._asdict() for rate in rates]})
    return 0


def _device_and_precision(requested: str | None) -> tuple[Any, str]:
    """Return the GPU if there is one, and the requested precision or the usual one of the device."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return device, requested or ("bf16" if device.type == "cuda" else "fp32")


def _about(device: Any) -> dict[str, str]:
    """Return the device and the version of torch, which results are recorded with."""
    import torch

    from mythos.bench.timing import device_name

    return {"device": device_name(device), "torch": torch.__version__}


def _write(path: Path | None, record: dict[str, Any]) -> None:
    """Write the results if a file is given."""
    if path is not None:
        from mythos.files import write_text

        write_text(path, json.dumps(record, indent=1))
