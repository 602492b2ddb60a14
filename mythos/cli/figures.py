"""``mythos figures RUN... --to DIR``: runs as static SVG curves, for a page that is kept in git."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the dispatcher."""
    parser = subparsers.add_parser(
        "figures",
        help="draw runs as static SVG files",
        description="Reads run directories and writes loss.svg, depth.svg, norms.svg and exits.svg, each of them "
        "only if a run holds what it shows. Equal runs give equal files.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory, such as runs/quickstart")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write the files to")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the figures; a line for each says what it leaves out."""
    from mythos.report.static import write_figures

    for line in write_figures(args.runs, args.to):
        print(line)
    return 0
