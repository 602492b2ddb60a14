"""``mythos bench``: measure memory and speed on this machine."""

import argparse
from typing import TypeAlias

from mythos.cli import bench_runs
from mythos.cli.options import add_config, add_config_dir, add_json

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("bench", help="measure memory or speed", description="Measure on this machine.")
    what = parser.add_subparsers(required=True, metavar="WHAT")
    for add in (_add_model, _add_memory, _add_moe, _add_attention, _add_loss, _add_optimizer, _add_data):
        add(what)


def _add_model(what: Subparsers) -> None:
    model = what.add_parser("model", help="measure training steps of a model")
    _add_words(model)
    add_config_dir(model)
    model.add_argument(
        "--naive", action="store_true", help="also run one expert after the other, uncompiled, with all logits at once"
    )
    model.add_argument("--balanced", action="store_true", help="also run with equal loads of all experts")
    compare = "compare variants of these overrides instead, for instance A='optim=adamw' B='optim=muon_adamw'"
    model.add_argument("--compare", nargs="+", default=[], metavar="NAME=OVERRIDES", help=compare)
    model.add_argument(
        "--apart", action="store_true", help="run one variant after the other, so that memory holds only one"
    )
    model.add_argument(
        "--num-loops", type=int, nargs="+", default=[], metavar="T", help="also time steps at these loop counts"
    )
    model.add_argument(
        "--num-drawn-steps", type=int, default=0, metavar="N", help="also time N steps with drawn loop counts"
    )
    _add_documents(model)
    model.add_argument(
        "--rounds", type=int, default=10, metavar="N", help="time N rounds, each with all variants (default: 10)"
    )
    model.add_argument(
        "--steps", type=int, default=2, metavar="N", help="run N steps of a variant per round on a GPU (default: 2)"
    )
    model.add_argument(
        "--warmup", type=int, default=3, metavar="N", help="run N steps of each variant before (default: 3)"
    )
    model.add_argument(
        "--kernels", type=int, default=0, metavar="N", help="also list the N longest kernels of a step (default: 0)"
    )
    model.add_argument("--no-parts", action="store_true", help="do not time the parts of a step")
    add_json(model)
    model.set_defaults(run=bench_runs.run_model)


def _add_memory(what: Subparsers) -> None:
    memory = what.add_parser("memory", help="measure the peak memory of a step by number of loops")
    add_config(memory)
    memory.add_argument(
        "--num-loops",
        type=int,
        nargs="+",
        default=[4, 8, 16],
        metavar="T",
        help="measure at these loop counts (default: 4 8 16)",
    )
    add_json(memory)
    memory.set_defaults(run=bench_runs.run_memory)


def _add_moe(what: Subparsers) -> None:
    moe = what.add_parser("moe", help="compare a mixture-of-experts layer with a dense one of equal active FLOPs")
    shapes = "measure these shapes, for instance d2048-e64-f1024-k8-s1 (default: three)"
    moe.add_argument("shapes", nargs="*", metavar="SHAPE", help=shapes)
    moe.add_argument(
        "--arms",
        nargs="+",
        metavar="PATH/ROUTING",
        default=["grouped/natural", "grouped/balanced"],
        help="run these implementations and routings (default: grouped/natural grouped/balanced)",
    )
    moe.add_argument(
        "--tokens", type=int, default=32768, metavar="N", help="run one sequence of N tokens (default: 32768)"
    )
    _add_precision(moe, "bf16", "bf16-weights", "fp32")
    moe.add_argument("--compile", action="store_true", help="compile the layers")
    shared = "share bf16 weight copies and gradient accumulators among all calls, as the loops of a step do"
    moe.add_argument("--share", action="store_true", help=shared)
    _add_rounds(moe, rounds=30, warmup=5)
    moe.add_argument(
        "--kernels", type=int, default=0, metavar="N", help="also list the N longest kernels of each arm (default: 0)"
    )
    add_json(moe)
    moe.set_defaults(run=bench_runs.run_moe)


def _add_attention(what: Subparsers) -> None:
    attention = what.add_parser("attention", help="compare attention in training with other implementations")
    shapes = "measure these shapes, for instance b8-h16-g4-s2048-p128 (default: two)"
    attention.add_argument("shapes", nargs="*", metavar="SHAPE", help=shapes)
    attention.add_argument(
        "--arms", nargs="+", metavar="ARM", help="run these: training flash cudnn efficient math flex (default: all)"
    )
    _add_documents(attention)
    _add_precision(attention, "bf16", "fp32")
    _add_rounds(attention)
    add_json(attention)
    attention.set_defaults(run=bench_runs.run_attention)


def _add_loss(what: Subparsers) -> None:
    loss = what.add_parser("loss", help="compare linear cross-entropy in chunks with all logits in fp32")
    loss.add_argument("--tokens", type=int, default=16384, metavar="N", help="run N tokens (default: 16384)")
    loss.add_argument("--dim", type=int, default=1024, metavar="D", help="run with model width D (default: 1024)")
    loss.add_argument("--vocab", type=int, default=32768, metavar="V", help="run with V classes (default: 32768)")
    loss.add_argument(
        "--chunks",
        type=int,
        nargs="+",
        default=[1024, 4096, 8192],
        metavar="N",
        help="run chunks of these numbers of tokens (default: 1024 4096 8192)",
    )
    _add_precision(loss, "bf16", "fp32")
    _add_rounds(loss)
    add_json(loss)
    loss.set_defaults(run=bench_runs.run_loss)


def _add_optimizer(what: Subparsers) -> None:
    optimizer = what.add_parser("optimizer", help="measure steps of MuonAdamW and AdamW and their share of training")
    _add_words(optimizer)
    add_config_dir(optimizer)
    optimizer.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        default=[65536, 524288],
        metavar="N",
        help="print the share for steps of these numbers of tokens (default: 65536 524288)",
    )
    _add_documents(optimizer)
    _add_rounds(optimizer)
    add_json(optimizer)
    optimizer.set_defaults(run=bench_runs.run_optimizer)


def _add_data(what: Subparsers) -> None:
    data = what.add_parser("data", help="measure the tokens per second of the loader")
    add_config(data)
    data.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[0, 1, 2, 4],
        metavar="N",
        help="run with these numbers of worker processes (default: 0 1 2 4)",
    )
    data.add_argument(
        "--batches", type=int, default=100, metavar="N", help="load N micro-batches per round (default: 100)"
    )
    data.add_argument(
        "--rounds", type=int, default=10, metavar="N", help="time N rounds of each number of workers (default: 10)"
    )
    add_json(data)
    data.set_defaults(run=bench_runs.run_data)


def _add_words(parser: argparse.ArgumentParser) -> None:
    words = "use dense-d1024, moe-d2048 or moe-d1024, and override values of the configuration"
    parser.add_argument("words", nargs="*", metavar="NAME|key=value", help=words)


def _add_documents(parser: argparse.ArgumentParser) -> None:
    documents = "mask documents of N tokens on average; 0 masks none (default: 1024)"
    parser.add_argument("--documents", type=int, default=1024, metavar="N", help=documents)


def _add_precision(parser: argparse.ArgumentParser, *choices: str) -> None:
    parser.add_argument("--precision", choices=choices, help="run in this precision (default: bf16 on CUDA, else fp32)")


def _add_rounds(parser: argparse.ArgumentParser, rounds: int = 20, warmup: int = 3) -> None:
    parser.add_argument(
        "--rounds", type=int, default=rounds, metavar="N", help=f"time N rounds, each with all arms (default: {rounds})"
    )
    parser.add_argument(
        "--warmup", type=int, default=warmup, metavar="N", help=f"call each arm N times before (default: {warmup})"
    )
