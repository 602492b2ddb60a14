"""``mythos sweep``: many runs, each in its own processes."""

import argparse
from pathlib import Path

from mythos.cli.options import add_config_dir


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "sweep",
        help="train many runs: a grid, a list or a search",
        description="Run mythos train for each job of conf/sweep/NAME.yaml, of overrides with several values, or of "
        "both. The same command resumes a sweep with the jobs that have not finished.",
        epilog="Example: mythos sweep sweep=lr-depth sweep.launcher.num_parallel=2 run.seed=0,1",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="give sweep=NAME, sweep.KEY=VALUE and overrides of the runs"
    )
    add_config_dir(parser)
    parser.add_argument("--table", type=Path, metavar="DIR", help="print the table of a sweep's folder and exit")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sweep, or print its table."""
    from mythos.config.base import ConfigError
    from mythos.sweep import run as sweep

    if arguments.table is not None:
        if arguments.overrides:
            raise ConfigError(f"--table: {len(arguments.overrides)} overrides were given too; give the folder only.")
        sweep.show(arguments.table)
        return 0
    return sweep.run(arguments.overrides, arguments.config_dir, arguments.mistake_in)
