"""``mythos doctor``: versions, parameters, FLOPs and memory of a configuration; no model is built."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "doctor",
        help="print versions, parameters, FLOPs and memory",
        description="Says what a configuration costs from its numbers alone; no model is built.",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for instance model=140m")
    parser.add_argument("--config-dir", type=Path, help="folder that holds train.yaml")
    parser.add_argument("--sizes", action="store_true", help="one line for each file of conf/model instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report and return the exit status.

    Raises:
        ConfigError: for a configuration that cannot run.
    """
    from mythos.cli.doctor_tables import run_report, sizes_report, versions_line
    from mythos.config.base import ConfigError
    from mythos.config.load import default_config_dir, load

    if args.sizes and args.overrides:
        raise ConfigError(
            f"--sizes: {' '.join(args.overrides)} was given beside it, but it prints every model as its file "
            "says; leave out one of the two."
        )
    if args.sizes:
        print(sizes_report(args.config_dir or default_config_dir()))
    else:
        print(versions_line(), run_report(load(args.overrides, args.config_dir)), sep="\n\n")
    return 0
