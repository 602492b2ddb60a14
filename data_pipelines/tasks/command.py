"""``mythos-data tasks``: write synthetic reasoning problems as a packed dataset."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from data_pipelines.tasks.problem import Task

DIFFICULTIES: Final = {
    "p-hop": ("hops", "number of induction hops over one sequence"),
    "k-hop": ("hops", "number of relations to follow in a knowledge graph, at least 2"),
    "addition": ("numbers", "number of summands"),
    "mano": ("operations", "number of operations in a modular prefix expression"),
    "parity": ("bits", "number of bits"),
    "permutations": ("steps", "number of permutations to compose"),
}
SETTINGS: Final = {
    "p-hop": {"letters": (4, "number of letters in the alphabet"), "length": (256, "length of a sequence in letters")},
    "k-hop": {
        "entities": (200, "number of entities"),
        "relations": (10, "number of kinds of relations"),
        "out_degree": (10, "number of relations of each entity"),
        "graph_seed": (0, "seed of the graph"),
    },
    "addition": {"digits": (3, "number of digits of each summand")},
    "mano": {"modulus": (23, "modulus of the arithmetic")},
    "parity": {},
    "permutations": {"items": (5, "number of permuted items")},
}


def add_tasks_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand and one below it for each task."""
    tasks = commands.add_parser("tasks", help="Write the problems of a synthetic reasoning task").add_subparsers(
        required=True, metavar="TASK", dest="task"
    )
    for name, (difficulty, meaning) in DIFFICULTIES.items():
        task = tasks.add_parser(name, help=f"Write problems whose difficulty is the {meaning}")
        task.add_argument(
            f"--{difficulty}",
            dest="difficulties",
            type=int,
            nargs="+",
            required=True,
            metavar="N",
            help=f"Set the {meaning}",
        )
        task.add_argument(
            f"--test-{difficulty}",
            dest="test_difficulties",
            type=int,
            nargs="+",
            metavar="N",
            help=f"Set the same for test problems (as --{difficulty})",
        )
        for setting, (default, help_text) in SETTINGS[name].items():
            option = f"--{setting.replace('_', '-')}"
            task.add_argument(option, type=int, default=default, metavar="N", help=f"Set the {help_text} ({default})")
        task.add_argument(
            "--num-train", type=int, required=True, metavar="N", help="Set the number of training problems"
        )
        task.add_argument("--num-test", type=int, required=True, metavar="N", help="Set the number of test problems")
        task.add_argument("--seed", type=int, default=0, metavar="N", help="Set the seed of the problems (0)")
        task.add_argument("--seq-len", type=int, metavar="N", help="Set the window length (the longest problem's)")
        task.add_argument("--to", type=Path, required=True, metavar="DIR", help="Write the dataset into this folder")
        task.add_argument("--overwrite", action="store_true", help="Replace a different result in that folder")
        task.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from data_pipelines.tasks.write import TaskOptions, write_task
    from mythos.config.base import decode

    settings = {setting: getattr(options, setting) for setting in SETTINGS[options.task]}
    fields = {name: getattr(options, name) for name in ("difficulties", "num_train", "num_test", "seed", "seq_len")}
    test_difficulties = options.test_difficulties or options.difficulties
    task_options = decode(TaskOptions, fields | {"test_difficulties": test_difficulties})
    all_difficulties = sorted({*task_options.difficulties, *task_options.test_difficulties})
    task = build_task(options.task, settings, all_difficulties)
    manifest = write_task(task, settings, task_options, options.to, options.overwrite)
    for name, split in manifest.splits.items():
        if fitted := split.best_fit:
            print(
                f"{name}: {fitted.num_documents:,} problems in {fitted.num_windows:,} windows of {fitted.seq_len} "
                f"tokens; the vocabulary has {manifest.vocab_size} words"
            )
    return 0


def build_task(name: str, settings: dict[str, Any], difficulties: list[int]) -> "Task":
    """Construct the task of this name; ``difficulties`` must list all difficulties that it will draw."""
    from data_pipelines.tasks.arithmetic import Addition, Mano
    from data_pipelines.tasks.k_hop import KHop
    from data_pipelines.tasks.p_hop import PHop
    from data_pipelines.tasks.state_tracking import Parity, Permutations

    match name:
        case "p-hop":
            return PHop(settings["letters"], settings["length"], difficulties)
        case "k-hop":
            return KHop(settings["entities"], settings["relations"], settings["out_degree"], settings["graph_seed"])
        case "addition":
            return Addition(settings["digits"], difficulties)
        case "mano":
            return Mano(settings["modulus"])
        case "parity":
            return Parity()
        case "permutations":
            return Permutations(settings["items"])
    raise AssertionError(name)
