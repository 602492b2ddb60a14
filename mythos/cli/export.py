"""``mythos export``: write a run's model as a folder that transformers loads."""

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "export",
        help="write a folder that transformers loads",
        description="Write weights, configuration, code, tokenizer and model card of a checkpoint.",
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="export this run")
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="write to this folder, which must be new or empty"
    )
    parser.add_argument("--replace", action="store_true", help="replace an earlier export in that folder")
    parser.add_argument(
        "--step", type=int, metavar="N", help="export the checkpoint of this step (default: the newest valid one)"
    )
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="convert the weights (default: fp32)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the folder and print its size."""
    import torch

    from mythos.export.folder import export

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[arguments.dtype]
    done = export(arguments.directory, arguments.to, arguments.step, dtype, arguments.replace)
    print(
        f"{arguments.to}: {done.num_parameters:,} parameters from {done.checkpoint}, {done.num_loops} loops by default"
    )
    return 0
