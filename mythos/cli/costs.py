"""``mythos costs``: print parameters, FLOPs and memory of a configuration."""

import argparse

from mythos.cli.options import add_config


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "costs",
        help="print parameters, FLOPs and memory of a model",
        description="Print the cost of a configuration. No model is built.",
        epilog="Example: mythos costs model=140m",
    )
    add_config(parser)
    parser.add_argument("--sizes", action="store_true", help="print one line for each file of conf/model instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; their dependencies are imported only here."""
    from mythos.cli import costs_tables

    return costs_tables.run(arguments)
