"""``mythos export``: a run's model as a folder that transformers loads."""

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "export",
        help="write a folder that transformers loads",
        description="Write weights, configuration, code, tokenizer and model card of a checkpoint.",
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a folder that is new or empty")
    parser.add_argument("--replace", action="store_true", help="take the place of an earlier export in that folder")
    parser.add_argument("--step", type=int, metavar="N", help="of the checkpoint; the newest sound one when left out")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="of the weights")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    import torch

    from mythos.export.folder import export

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[arguments.dtype]
    done = export(arguments.directory, arguments.to, arguments.step, dtype, arguments.replace)
    print(
        f"{arguments.to}: {done.num_parameters:,} numbers from {done.checkpoint}, {done.num_loops} passes unless told "
        "otherwise"
    )
    return 0
