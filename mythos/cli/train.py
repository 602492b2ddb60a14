"""``mythos train``: compose the configuration, check it, and train."""

import argparse
import sys

from mythos.cli.config import add_groups
from mythos.cli.options import add_config


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a model",
        description="Train the run that conf/train.yaml and the Hydra overrides describe.",
        epilog="Example: mythos train experiment=quickstart depth.mean=4 run.name=shallow",
    )
    add_config(parser)
    parser.add_argument(
        "-m",
        "--multirun",
        action="store_true",
        help="run a sweep over every combination of overrides with several values",
    )
    add_groups(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the run before torch is imported, then train in one process or in one process per device."""
    if arguments.multirun:
        from mythos.sweep import run as sweep

        return sweep.run(arguments.overrides, arguments.config_dir, arguments.mistake_in)
    from mythos.config.gradient import untrained
    from mythos.config.load import load
    from mythos.parallel.launcher import is_launched
    from mythos.train.restarts import run_with_restarts
    from mythos.train.run_directory import check_packages, refuse
    from mythos.train.start import start

    config = load(arguments.overrides, arguments.config_dir, check_packages)
    refuse(config)
    if not is_launched():
        for sentence in untrained(config):
            print(f"warning: {sentence}", file=sys.stderr)
    needs_launcher = config.cluster.world_size > 1 or config.run.max_restarts > 0
    if needs_launcher and not is_launched():
        options = [] if arguments.config_dir is None else ["--config-dir", str(arguments.config_dir)]
        return run_with_restarts(config, arguments.overrides, options)
    return start(config)
