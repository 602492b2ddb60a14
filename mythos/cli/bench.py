"""``mythos bench``: measurements on this machine."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("bench", help="measure memory or speed", description="Measure on this machine.")
    what = parser.add_subparsers(required=True, metavar="WHAT")
    _add_model(what)
    memory = what.add_parser("memory", help="peak memory of a step against the number of passes")
    memory.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    memory.add_argument("--num-loops", type=int, nargs="+", default=[4, 8, 16], metavar="T", help="numbers of passes")
    memory.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    memory.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    memory.set_defaults(run=run_memory)
    moe = what.add_parser("moe", help="a mixture-of-experts layer against a dense one of equal active FLOPs")
    moe.add_argument("shapes", nargs="*", metavar="SHAPE", help="like d2048-e64-f1024-k8-s1; default: three of these")
    moe.add_argument("--arms", nargs="+", metavar="PATH/ROUTING", default=["grouped/natural", "grouped/balanced"])
    moe.add_argument("--tokens", type=int, default=32768, metavar="N", help="tokens of the one sequence")
    moe.add_argument("--precision", choices=["bf16", "bf16-weights", "fp32"], help="default: bf16 on CUDA, else fp32")
    moe.add_argument("--compile", action="store_true", help="compile the layers")
    shared = "share bf16 copies of the weights and sums of their gradients among all calls, as the passes of a step do"
    moe.add_argument("--share", action="store_true", help=shared)
    moe.add_argument("--rounds", type=int, default=30, help="timed calls of each arm, in turn")
    moe.add_argument("--warmup", type=int, default=5, help="calls of each arm before")
    moe.add_argument("--kernels", type=int, default=0, metavar="N", help="also list the N longest kernels of each arm")
    moe.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    moe.set_defaults(run=run_moe)
    _add_attention(what)
    _add_loss(what)
    _add_optimizer(what)
    _add_data(what)


def _add_model(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    model = what.add_parser("model", help="whole training steps of a model")
    names = "dense-d1024, moe-d2048, moe-d1024, and Hydra overrides"
    model.add_argument("words", nargs="*", metavar="NAME|key=value", help=names)
    model.add_argument("--naive", action="store_true", help="also expert after expert, uncompiled, all logits at once")
    model.add_argument("--balanced", action="store_true", help="also with as many tokens for each expert")
    compare = "instead, variants of these overrides, for instance A='optim=adamw' B='optim=muon_adamw'"
    model.add_argument("--compare", nargs="+", default=[], metavar="NAME=OVERRIDES", help=compare)
    model.add_argument("--apart", action="store_true", help="one variant after the other, each alone in memory")
    model.add_argument("--num-loops", type=int, nargs="+", default=[], metavar="T", help="also step time against T")
    model.add_argument("--num-drawn-steps", type=int, default=0, metavar="N", help="also N steps whose T is drawn")
    model.add_argument("--documents", type=int, default=1024, metavar="N", help="mean length in tokens; 0 for none")
    model.add_argument("--rounds", type=int, default=10, help="timed rounds, each variant in each")
    model.add_argument("--steps", type=int, default=2, help="steps of a variant in a round on a GPU")
    model.add_argument("--warmup", type=int, default=3, help="steps of each variant before")
    model.add_argument("--kernels", type=int, default=0, metavar="N", help="also list the N longest kernels of a step")
    model.add_argument("--no-parts", action="store_true", help="leave out the times of the step's parts")
    model.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    model.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    model.set_defaults(run=run_model)


def run_model(arguments: argparse.Namespace) -> int:
    """Print the variants' times, rates, parts and memory, and step time against T where it is asked for."""
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


def _add_attention(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    attention = what.add_parser("attention", help="attention as trained, SDPA's backends and FlexAttention")
    attention.add_argument("shapes", nargs="*", metavar="SHAPE", help="like b8-h16-g4-s2048-p128; default: two")
    attention.add_argument("--arms", nargs="+", metavar="ARM", help="of training flash cudnn efficient math flex")
    attention.add_argument("--documents", type=int, default=1024, metavar="N", help="their mean length; 0 for none")
    _add_timing(attention)
    attention.set_defaults(run=run_attention)


def _add_loss(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    loss = what.add_parser("loss", help="linear cross-entropy in chunks against all logits in fp32")
    loss.add_argument("--tokens", type=int, default=16384, metavar="N")
    loss.add_argument("--dim", type=int, default=1024, metavar="D")
    loss.add_argument("--vocab", type=int, default=32768, metavar="V")
    loss.add_argument(
        "--chunks", type=int, nargs="+", default=[1024, 4096, 8192], metavar="N", help="tokens of a chunk"
    )
    _add_timing(loss)
    loss.set_defaults(run=run_loss)


def _add_optimizer(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    optimizer = what.add_parser("optimizer", help="steps of MuonAdamW and AdamW, and their share of training")
    names = "dense-d1024, moe-d2048, moe-d1024, and Hydra overrides"
    optimizer.add_argument("words", nargs="*", metavar="NAME|key=value", help=names)
    optimizer.add_argument("--tokens", type=int, nargs="+", default=[65536, 524288], metavar="N", help="of a step")
    optimizer.add_argument("--documents", type=int, default=1024, metavar="N", help="their mean length; 0 for none")
    optimizer.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    _add_timing(optimizer, with_precision=False)
    optimizer.set_defaults(run=run_optimizer)


def _add_data(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    data = what.add_parser("data", help="tokens a second that the loader delivers")
    data.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides, for instance data.dir=DIR")
    data.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4], metavar="N", help="worker processes")
    data.add_argument("--batches", type=int, default=100, metavar="N", help="micro-batches of a round")
    data.add_argument("--rounds", type=int, default=10, help="timed rounds of each number of workers")
    data.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    data.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    data.set_defaults(run=run_data)


def _add_timing(parser: argparse.ArgumentParser, with_precision: bool = True) -> None:
    if with_precision:
        parser.add_argument("--precision", choices=["bf16", "fp32"], help="default: bf16 on CUDA, else fp32")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds, each arm in each, ten calls on a GPU")
    parser.add_argument("--warmup", type=int, default=3, help="calls of each arm before")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")


def run_attention(arguments: argparse.Namespace) -> int:
    """Print a table for each shape, causal and with documents, and what cannot run and why."""
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
            found = compare(shape, document_ids_BS, arms, device, dtype, arguments.rounds, arguments.warmup)
            print(f"\n{shape}, {mask}\n{table(found.rows)}", flush=True)
            for name, why in found.refused.items():
                print(f"{name}: cannot run here: {why[:90]}")
            rows = [row.as_dict() for row in found.rows]
            record.setdefault("shapes", {}).setdefault(str(shape), {})[mask] = {"rows": rows, "refused": found.refused}
    _write(arguments.json, record)
    return 0


def run_loss(arguments: argparse.Namespace) -> int:
    """Print time and memory of each way to the loss."""
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
    """Print the optimisers' steps and their shares of a training step."""
    from mythos.bench.model import device_of, overrides_of
    from mythos.bench.optimizer import compare, table
    from mythos.config.load import load

    config = load(overrides_of(arguments.words), arguments.config_dir)
    device = device_of(config)
    about = _about(device)
    print(f"{about['device']}, torch {about['torch']}, {' '.join(arguments.words)}")
    found = compare(config, device, arguments.documents, arguments.rounds, arguments.warmup)
    print(table(found, arguments.tokens))
    rows = [
        row.as_dict()
        | {"state_bytes": found.state_bytes[row.name]}
        | {"shares": {str(tokens): found.share(row, tokens) for tokens in arguments.tokens}}
        for row in found.rows
    ]
    one = {"tokens": found.tokens_of_micro_batch, "time": found.micro_batch._asdict()}
    _write(arguments.json, about | {"config": asdict(config), "micro_batch": one, "rows": rows})
    return 0


def run_data(arguments: argparse.Namespace) -> int:
    """Print the loader's rate by its number of workers."""
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


def _device_and_precision(wanted: str | None) -> tuple[Any, str]:
    """CUDA where there is one, and what it is usually run in."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return device, wanted or ("bf16" if device.type == "cuda" else "fp32")


def _about(device: Any) -> dict[str, str]:
    """What numbers are of no use without."""
    import torch

    from mythos.bench.timing import device_name

    return {"device": device_name(device), "torch": torch.__version__}


def _write(path: Path | None, record: dict[str, Any]) -> None:
    """Keep the numbers where that was asked for."""
    if path is not None:
        from mythos.files import write_text

        write_text(path, json.dumps(record, indent=1))


def run_memory(arguments: argparse.Namespace) -> int:
    """Print one line for each number of passes, and the growth per pass in state tensors."""
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
            line += f"   {growth:6.3f} state tensors more per pass since T = {first.num_loops}"
        print(line)
    if arguments.json is not None:
        from mythos.files import write_text

        rows = [point._asdict() for point in points]
        write_text(arguments.json, json.dumps({"state_bytes": state, "points": rows}, indent=1))
    return 0


def run_moe(arguments: argparse.Namespace) -> int:
    """Print a table for each shape: times, rate, ratio to the dense layer, memory."""
    import torch

    from mythos.bench.moe import SHAPES, Setting, check, measure, parse_shape, table
    from mythos.bench.timing import device_name

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = arguments.precision or ("bf16" if device.type == "cuda" else "fp32")
    shapes = [parse_shape(text) for text in arguments.shapes] or list(SHAPES)
    settings = [
        Setting(shape, arguments.tokens, device, precision, arguments.compile, arguments.share) for shape in shapes
    ]
    for setting in settings:
        check(setting, arguments.arms, arguments.kernels > 0)
    compiled = "compiled" if arguments.compile else "eager"
    print(f"{device_name(device)}, torch {torch.__version__}, {arguments.tokens} tokens, {precision}, {compiled}")
    rows = {}
    for setting in settings:
        arms = measure(setting, arguments.arms, arguments.rounds, arguments.warmup, arguments.kernels > 0)
        print(f"\n{setting.shape}\n{table(arms, arguments.kernels)}", flush=True)
        rows[str(setting.shape)] = [arm.as_dict() for arm in arms]
    if arguments.json is not None:
        from mythos.files import write_text

        common = {"device": device_name(device), "torch": torch.__version__, "num_tokens": arguments.tokens}
        common |= {"precision": precision, "compile": arguments.compile}
        write_text(arguments.json, json.dumps(common | {"shapes": rows}, indent=1))
    return 0
