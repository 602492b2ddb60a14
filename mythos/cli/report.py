"""``mythos report RUN...``: write or serve one HTML page about one run or several."""

import argparse
from pathlib import Path
from typing import Final

_PORT: Final = 8765


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="write one self-contained HTML page about one run or several",
        description="Write one page about the metrics of runs: report/index.html in the run's directory or, for "
        "several runs, in the parent folder of the first.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="report these runs, for instance runs/quickstart, or a sweep"
    )
    parser.add_argument("--sweep", action="store_true", help="plot the loss against the values that differ")
    parser.add_argument("--to", type=Path, metavar="DIR", help="write index.html to this folder")
    parser.add_argument(
        "--serve",
        type=int,
        nargs="?",
        const=_PORT,
        metavar="PORT",
        help=f"serve the page on this port of this machine (default: {_PORT}) and update it, instead of writing it",
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
