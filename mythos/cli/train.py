"""``mythos train``: compose, check, train."""

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train what conf/ describes",
        description="Train what conf/train.yaml describes, with Hydra overrides on top.",
        epilog="Example: mythos train experiment=quickstart depth.mean=4 run.name=shallow",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    parser.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    parser.add_argument(
        "-m",
        "--multirun",
        action="store_true",
        help="a sweep: every combination of overrides with several values",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Refuse what cannot work before torch is imported; then train, in one process or in one for each device."""
    if arguments.multirun:
        from mythos.sweep import run as sweep

        return sweep.run(arguments.overrides, arguments.config_dir, arguments.mistake_in)
    from mythos.config.load import load
    from mythos.parallel.launcher import is_launched
    from mythos.train.restarts import run_with_restarts
    from mythos.train.run_directory import refuse
    from mythos.train.start import start

    config = load(arguments.overrides, arguments.config_dir)
    refuse(config)
    needs_launcher = config.cluster.world_size > 1 or config.run.max_restarts > 0
    if needs_launcher and not is_launched():
        options = [] if arguments.config_dir is None else ["--config-dir", str(arguments.config_dir)]
        return run_with_restarts(config, arguments.overrides, options)
    return start(config)
