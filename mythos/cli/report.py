"""``mythos report RUN...``: one HTML page about a run or several, written or served."""

import argparse
from pathlib import Path
from typing import Final

_PORT: Final = 8765


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the dispatcher."""
    parser = subparsers.add_parser(
        "report",
        help="write one self-contained HTML page about a run or several",
        description="Reads the metrics of run directories and writes one page: report/index.html in the run's "
        "directory or, about several runs, in the folder that holds the first.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run directory, such as runs/quickstart, or one sweep's"
    )
    parser.add_argument("--sweep", action="store_true", help="show the values that differ against the loss")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder to write index.html to")
    parser.add_argument(
        "--serve",
        type=int,
        nargs="?",
        const=_PORT,
        metavar="PORT",
        help=f"show the page on this machine's port ({_PORT}) and keep it fresh, instead of writing it",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path, or serve it until interrupted."""
    from mythos.config.base import ConfigError
    from mythos.report.jobs import is_sweep

    if args.sweep and len(args.runs) < 2 and not is_sweep(args.runs[0]):
        raise ConfigError(f"--sweep: {len(args.runs)} run was given; a sweep compares at least 2.")
    if args.serve is not None:
        return _serve(args)
    from mythos.report.page import write_report

    print(write_report(args.runs, args.to, args.sweep))
    return 0


def _serve(args: argparse.Namespace) -> int:
    from mythos.report.serve import ReportServer, Source

    with ReportServer(args.serve, Source(args.runs, args.sweep)) as server:
        print(f"{server.address} shows the report and follows the run; Ctrl-C ends.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
