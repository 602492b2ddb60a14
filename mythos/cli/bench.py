"""``mythos bench``: measurements on this machine."""

import argparse
from pathlib import Path

from mythos.cli import bench_runs


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
    memory.set_defaults(run=bench_runs.run_memory)
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
    moe.set_defaults(run=bench_runs.run_moe)
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
    model.set_defaults(run=bench_runs.run_model)


def _add_attention(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    attention = what.add_parser("attention", help="attention as trained, SDPA's backends and FlexAttention")
    attention.add_argument("shapes", nargs="*", metavar="SHAPE", help="like b8-h16-g4-s2048-p128; default: two")
    attention.add_argument("--arms", nargs="+", metavar="ARM", help="of training flash cudnn efficient math flex")
    attention.add_argument("--documents", type=int, default=1024, metavar="N", help="their mean length; 0 for none")
    _add_timing(attention)
    attention.set_defaults(run=bench_runs.run_attention)


def _add_loss(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    loss = what.add_parser("loss", help="linear cross-entropy in chunks against all logits in fp32")
    loss.add_argument("--tokens", type=int, default=16384, metavar="N")
    loss.add_argument("--dim", type=int, default=1024, metavar="D")
    loss.add_argument("--vocab", type=int, default=32768, metavar="V")
    loss.add_argument(
        "--chunks", type=int, nargs="+", default=[1024, 4096, 8192], metavar="N", help="tokens of a chunk"
    )
    _add_timing(loss)
    loss.set_defaults(run=bench_runs.run_loss)


def _add_optimizer(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    optimizer = what.add_parser("optimizer", help="steps of MuonAdamW and AdamW, and their share of training")
    names = "dense-d1024, moe-d2048, moe-d1024, and Hydra overrides"
    optimizer.add_argument("words", nargs="*", metavar="NAME|key=value", help=names)
    optimizer.add_argument("--tokens", type=int, nargs="+", default=[65536, 524288], metavar="N", help="of a step")
    optimizer.add_argument("--documents", type=int, default=1024, metavar="N", help="their mean length; 0 for none")
    optimizer.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    _add_timing(optimizer, with_precision=False)
    optimizer.set_defaults(run=bench_runs.run_optimizer)


def _add_data(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    data = what.add_parser("data", help="tokens a second that the loader delivers")
    data.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides, for instance data.dir=DIR")
    data.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4], metavar="N", help="worker processes")
    data.add_argument("--batches", type=int, default=100, metavar="N", help="micro-batches of a round")
    data.add_argument("--rounds", type=int, default=10, help="timed rounds of each number of workers")
    data.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    data.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    data.set_defaults(run=bench_runs.run_data)


def _add_timing(parser: argparse.ArgumentParser, with_precision: bool = True) -> None:
    if with_precision:
        parser.add_argument("--precision", choices=["bf16", "fp32"], help="default: bf16 on CUDA, else fp32")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds, each arm in each, ten calls on a GPU")
    parser.add_argument("--warmup", type=int, default=3, help="calls of each arm before")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
