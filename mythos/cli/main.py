"""``mythos``: each subcommand is one module, whose dependencies are imported only when it runs."""

import argparse
import contextlib
import io
import os
import sys

import mythos
from mythos.cli import (
    bench,
    config,
    consolidate,
    costs,
    doctor,
    evaluate,
    export,
    figures,
    plan,
    report,
    sample,
    sweep,
    trace,
    train,
)
from mythos.cli.options import check_paths
from mythos.files import restrict_umask
from mythos.parallel.threads import wait_passively
from mythos.terminal import plain_output

_COMMANDS = (
    *(train, config, sweep, evaluate, sample, trace, report, figures),
    *(consolidate, export, doctor, costs, plan, bench),
)


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, run the command, and report a user's mistake in one line with exit status 2."""
    with plain_output():
        parsed = _parse(arguments)
        wait_passively()
        restrict_umask()
        return _run(parsed)


def mistake_in(words: list[str]) -> str | None:
    """Return the parser's error message for a command line, which is not run; None if there is no error."""
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            _parse(words)
    except SystemExit:
        return messages.getvalue().rpartition("error: ")[2].strip()
    return None


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse a command line, in which overrides may stand on both sides of options."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if not hasattr(parsed, "overrides") or any(word.startswith("-") for word in rest):
        return parser.parse_args(arguments)  # reports the words that no command knows
    parsed.overrides += rest
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mythos", description="Pretrain recurrent-depth mixture-of-experts transformers."
    )
    parser.add_argument("--version", action="version", version=mythos.__version__)
    parser.set_defaults(mistake_in=mistake_in)  # for the commands that check the command lines of others
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser


def _run(parsed: argparse.Namespace) -> int:
    from mythos.config.base import ConfigError  # pydantic, which --help does without
    from mythos.config.os_errors import is_of_files, sentence
    from mythos.parallel.launcher import ReportedByRankZero, is_first_rank

    try:
        check_paths(parsed)
        return parsed.run(parsed)
    except ReportedByRankZero:
        return 2
    except (ConfigError, OSError) as error:
        if isinstance(error, OSError) and not is_of_files(error):
            raise
        text = f"{sentence(error)}." if isinstance(error, OSError) else str(error)
        who = "mythos" if is_first_rank() else f"mythos: rank {os.environ['RANK']}"
        print(f"{who}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if is_first_rank():
            print("mythos: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    status = main()
    from mythos.parallel.launcher import is_launched

    if is_launched():  # at an ordinary shutdown gloo's threads can abort the interpreter
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
