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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Refuse what cannot work before torch is imported; then train."""
    from mythos.config.load import load
    from mythos.train.run_directory import prepare

    config = load(arguments.overrides, arguments.config_dir)
    directory = prepare(config)
    if directory.manifest is not None:
        print(f"going on from {directory.checkpoint} (step {directory.manifest.step})")

    from mythos.train.build import train

    losses = train(config, directory)
    for depth, loss in losses.items():
        print(f"held-out loss at T={depth}: {loss:.4f} nats per token")
    print(f"run directory: {directory.path}")
    return 0
