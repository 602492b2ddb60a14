"""``mythos report RUN...``: one HTML page for each run."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the dispatcher."""
    parser = subparsers.add_parser(
        "report",
        help="write one self-contained HTML page about a run",
        description="Reads the metrics of each run directory and writes report/index.html into it.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory, such as runs/quickstart")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the reports and print their paths."""
    from mythos.report.page import write_report

    for directory in args.runs:
        print(write_report(directory))
    return 0
