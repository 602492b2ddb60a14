"""``mythos evaluate``: held-out loss by loop count, tasks, studies of depth, or several runs compared."""

import argparse
import json
from pathlib import Path
from typing import Final

_STUDIES: Final = ("depth-sweep", "reasoning")
_USAGE: Final = """mythos evaluate RUN [--num-loops T ...]
       mythos evaluate RUN --tasks NAME[,NAME ...] [--data-dir DIR] [--num-loops T ...] [--exit-rule RULE] [--limit N]
       mythos evaluate RUN depth-sweep [--num-loops T ...] [--num-windows N] [--noise SIZE]
       mythos evaluate RUN reasoning [--num-loops T ...]
       mythos evaluate compare RUN RUN ..."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="held-out loss, tasks, a study of depth, or runs compared",
        description="Judge a run on its held-out data, on tasks, or against others.",
        usage=_USAGE,
    )
    parser.add_argument(
        "what", nargs="+", metavar="RUN", help="a run's directory, then nothing, depth-sweep or reasoning"
    )
    parser.add_argument(
        "--num-loops",
        type=int,
        nargs="+",
        metavar="T",
        help="loop counts (held-out loss: 1 2 4 8; tasks: the mean depth of training)",
    )
    parser.add_argument("--tasks", metavar="NAMES", help="tasks with commas between, such as piqa_local,core")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of the evaluation sets")
    parser.add_argument(
        "--exit-rule", metavar="RULE", help="let each token leave by this rule, such as relative_change"
    )
    parser.add_argument("--exit-threshold", type=float, metavar="X", help="of the exit rule")
    parser.add_argument("--limit", type=int, metavar="N", help="items of each task; all")
    parser.add_argument("--num-fewshot", type=int, metavar="N", help="solved examples before each item; the task's own")
    parser.add_argument("--num-windows", type=int, default=16, metavar="N", help="windows of a depth sweep (16)")
    parser.add_argument("--noise", type=float, default=0.01, metavar="SIZE", help="disturbance in a depth sweep (0.01)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the arguments ask for, and write the results into the run's directory."""
    from mythos.config.base import ConfigError

    if arguments.num_loops is not None and min(arguments.num_loops) < 1:
        raise ConfigError(f"--num-loops: {min(arguments.num_loops)} was given; the core runs at least once.")
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
