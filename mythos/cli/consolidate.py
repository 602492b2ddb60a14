"""``mythos consolidate``: write the weights of a checkpoint as one safetensors file."""

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "consolidate",
        help="write the weights as one safetensors file",
        description="Join the fragments of a verified checkpoint into one file of weights and buffers.",
    )
    parser.add_argument(
        "directory",
        type=Path,
        metavar="RUN_OR_CHECKPOINT",
        help="read this checkpoint, or the newest valid one of this run",
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help="write this file, for instance model.safetensors"
    )
    parser.add_argument("--dtype", choices=["fp32", "bf16"], help="convert floating-point tensors (default: as stored)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file and print its size."""
    import torch

    from mythos.checkpoint.consolidate import consolidate

    dtype = {None: None, "fp32": torch.float32, "bf16": torch.bfloat16}[arguments.dtype]
    done = consolidate(arguments.directory, arguments.to, dtype)
    print(f"{arguments.to}: {done.num_tensors:,} tensors, {done.num_elements:,} elements, from {done.checkpoint}")
    return 0
