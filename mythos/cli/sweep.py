"""``mythos sweep``: many runs, each in processes of its own."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "sweep",
        help="train many runs: a grid, a list or a search",
        description="Starts mythos train for each job of conf/sweep/NAME.yaml, of overrides with several values, or of "
        "both. The same command again goes on with what has not finished.",
        epilog="Example: mythos sweep sweep=lr-depth sweep.launcher.num_parallel=2 run.seed=0,1",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="sweep=NAME, sweep.KEY=VALUE, Hydra overrides of the runs"
    )
    parser.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    parser.add_argument("--table", type=Path, metavar="DIR", help="only print the table of a sweep's folder")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sweep, or print how it stands."""
    from mythos.config.base import ConfigError
    from mythos.sweep import run as sweep

    if arguments.table is not None:
        if arguments.overrides:
            raise ConfigError(f"--table: {len(arguments.overrides)} overrides were given too; give the folder alone.")
        sweep.show(arguments.table)
        return 0
    return sweep.run(arguments.overrides, arguments.config_dir, arguments.mistake_in)
