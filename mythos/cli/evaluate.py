"""``mythos evaluate``: held-out loss by loop count, tasks, studies of depth, or several runs compared."""

import argparse
import json
from pathlib import Path
from typing import Final

from mythos.cli.options import add_json

_STUDIES: Final = ("depth-sweep", "reasoning")
_USAGE: Final = """mythos evaluate RUN [--num-loops T ...] [--data DIR ...]
       mythos evaluate RUN --tasks NAME[,NAME ...] [--data-dir DIR] [--num-loops T ...] [--exit-rule RULE] [--limit N]
       mythos evaluate RUN depth-sweep [--num-loops T ...] [--data DIR ...] [--num-windows N] [--noise SIZE]
       mythos evaluate RUN reasoning [--num-loops T ...] [--data DIR ...]
       mythos evaluate compare RUN RUN ..."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="evaluate held-out loss, tasks or depth, or compare runs",
        description="Evaluate a run on its held-out data or on tasks, or compare runs.",
        usage=_USAGE,
    )
    parser.add_argument("what", nargs="+", metavar="RUN", help="evaluate this run; depth-sweep or reasoning may follow")
    parser.add_argument(
        "--num-loops",
        type=int,
        nargs="+",
        metavar="T",
        help="evaluate at these loop counts (default: 1 2 4 8; tasks: the mean depth of training)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="read held-out data from these packed folders (default: those of the training)",
    )
    parser.add_argument(
        "--tasks", metavar="NAMES", help="evaluate these tasks, separated by commas, such as piqa_local,core"
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="read the data sets of tasks from this folder")
    parser.add_argument("--exit-rule", metavar="RULE", help="let each token exit by this rule, such as relative_change")
    parser.add_argument("--exit-threshold", type=float, metavar="X", help="set the threshold of the exit rule")
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate N items of each task (default: all)")
    parser.add_argument(
        "--num-fewshot", type=int, metavar="N", help="show N examples before each item (default: the task's number)"
    )
    parser.add_argument(
        "--num-windows", type=int, default=16, metavar="N", help="evaluate N windows in a depth sweep (default: 16)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.01,
        metavar="SIZE",
        help="disturb the embeddings by this relative size in a depth sweep (default: 0.01)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the arguments ask for, and write the results into the run's directory."""
    from mythos.config.base import ConfigError

    if arguments.num_loops is not None and min(arguments.num_loops) < 1:
        raise ConfigError(f"--num-loops: {min(arguments.num_loops)} was given; the core runs at least once.")
    is_compared = arguments.what[0] == "compare"
    if arguments.data and (is_compared or arguments.tasks is not None):
        reader = "evaluate compare reads stored results" if is_compared else "tasks read --data-dir"
        raise ConfigError(f"--data: {len(arguments.data)} folders were given, but {reader}; leave it out.")
    match arguments.what:
        case ["compare", *directories]:
            from mythos.cli.evaluate_compare import compare

            results = compare([Path(directory) for directory in directories])
        case [directory] if arguments.tasks is not None:
            from mythos.cli.evaluate_tasks import tasks

            results = tasks(Path(directory), arguments)
        case [directory]:
            from mythos.cli.evaluate_held_out import held_out

            results = held_out(Path(directory), arguments)
        case [directory, "depth-sweep"]:
            from mythos.cli.evaluate_depth import depth_sweep

            results = depth_sweep(Path(directory), arguments)
        case [directory, "reasoning"]:
            from mythos.cli.evaluate_problems import reasoning

            results = reasoning(Path(directory), arguments)
        case [_, word, *_]:
            raise ConfigError(
                f"{word!r} was given after the run; it is one of {', '.join(_STUDIES)}, and several runs are compared "
                "by mythos evaluate compare RUN RUN."
            )
    if arguments.json is not None:
        from mythos.files import write_text

        write_text(arguments.json, json.dumps(results, indent=1))
    return 0
