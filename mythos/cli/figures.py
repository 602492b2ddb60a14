"""``mythos figures RUN... --to DIR``: draw runs as static SVG figures, for documents in git."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "figures",
        help="draw runs as static SVG files",
        description="Write loss.svg, depth.svg, norms.svg and exits.svg, each if a run has its data. Equal runs give "
        "equal files.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="draw these runs, for instance runs/quickstart"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="write the files to this folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the figures, and print a line for each."""
    from mythos.report.static import write_figures

    for line in write_figures(args.runs, args.to):
        print(line)
    return 0
