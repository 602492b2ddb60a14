"""``mythos-data tasks``: synthetic reasoning problems as a packed dataset."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from data_pipelines.tasks.problem import Task

DIFFICULTIES: Final = {
    "p-hop": ("hops", "hops of induction over one sequence"),
    "k-hop": ("hops", "relations to follow in a knowledge graph, at least 2"),
    "addition": ("numbers", "numbers to add"),
    "mano": ("operations", "operations in a modular prefix expression"),
    "parity": ("bits", "bits in a row"),
    "permutations": ("steps", "permutations to apply one after the other"),
}
SETTINGS: Final = {
    "p-hop": {"letters": (4, "letters of the alphabet"), "length": (256, "letters in a sequence")},
    "k-hop": {
        "entities": (200, "entities"),
        "relations": (10, "kinds of relations"),
        "out_degree": (10, "relations of each entity"),
        "graph_seed": (0, "chooses the graph"),
    },
    "addition": {"digits": (3, "digits of each number")},
    "mano": {"modulus": (23, "numbers are taken modulo this")},
    "parity": {},
    "permutations": {"items": (5, "things that are permuted")},
}


def add_tasks_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand and one below it for each task."""
    tasks = commands.add_parser("tasks", help="write a synthetic reasoning task").add_subparsers(
        required=True, metavar="TASK", dest="task"
    )
    for name, (difficulty, meaning) in DIFFICULTIES.items():
        task = tasks.add_parser(name, help=f"difficulty: {meaning}")
        task.add_argument(
            f"--{difficulty}", dest="difficulties", type=int, nargs="+", required=True, metavar="N", help=meaning
        )
        task.add_argument(
            f"--test-{difficulty}",
            dest="test_difficulties",
            type=int,
            nargs="+",
            metavar="N",
            help=f"the same for the test (as --{difficulty})",
        )
        for setting, (default, help_text) in SETTINGS[name].items():
            option = f"--{setting.replace('_', '-')}"
            task.add_argument(option, type=int, default=default, metavar="N", help=f"{help_text} ({default})")
        task.add_argument("--num-train", type=int, required=True, metavar="N", help="training problems in all")
        task.add_argument("--num-test", type=int, required=True, metavar="N", help="test problems in all")
        task.add_argument("--seed", type=int, default=0, metavar="N")
        task.add_argument("--seq-len", type=int, metavar="N", help="length of a window (the longest problem's)")
        task.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder of the dataset")
        task.add_argument("--overwrite", action="store_true", help="replace what another run left there")
        task.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from data_pipelines.tasks.write import TaskOptions, write_task
    from mythos.config.base import decode

    settings = {setting: getattr(options, setting) for setting in SETTINGS[options.task]}
    fields = {name: getattr(options, name) for name in ("difficulties", "num_train", "num_test", "seed", "seq_len")}
    test_difficulties = options.test_difficulties or options.difficulties
    wanted = decode(TaskOptions, fields | {"test_difficulties": test_difficulties})
    all_difficulties = sorted({*wanted.difficulties, *wanted.test_difficulties})
    task = build_task(options.task, settings, all_difficulties)
    manifest = write_task(task, settings, wanted, options.to, options.overwrite)
    for name, split in manifest.splits.items():
        if fitted := split.best_fit:
            print(
                f"{name}: {fitted.num_documents:,} problems in {fitted.num_windows:,} windows of {fitted.seq_len} "
                f"tokens; the vocabulary has {manifest.vocab_size} words"
            )
    return 0


def build_task(name: str, settings: dict[str, Any], difficulties: list[int]) -> "Task":
    """The task of this name; ``difficulties`` are all that will be asked of it."""
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
