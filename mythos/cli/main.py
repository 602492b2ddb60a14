"""``mythos``: one subcommand a module, imported in full only when it runs."""

import argparse
import sys

import mythos
from mythos.cli import bench, doctor, evaluate, report, sample, trace, train
from mythos.config.base import ConfigError

_COMMANDS = (train, evaluate, sample, trace, report, doctor, bench)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and turn a user's mistake into one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="mythos", description="Pretrain recurrent-depth mixture-of-experts transformers."
    )
    parser.add_argument("--version", action="version", version=mythos.__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        return parsed.run(parsed)
    except ConfigError as error:
        print(f"mythos: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mythos: stopped; resume=auto goes on from the last checkpoint.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
