"""``mythos costs``: parameters, FLOPs and memory of a configuration; no model is built."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "costs",
        help="print parameters, FLOPs and memory of a model",
        description="Says what a configuration costs from its numbers alone; no model is built.",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for instance model=140m")
    parser.add_argument("--config-dir", type=Path, help="folder that holds train.yaml")
    parser.add_argument("--sizes", action="store_true", help="one line for each file of conf/model instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; what they need is imported here, so that other commands start without."""
    from mythos.cli import costs_tables

    return costs_tables.run(arguments)
