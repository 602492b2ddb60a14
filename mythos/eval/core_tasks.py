"""CORE (DCLM, arXiv 2406.11794): 22 tasks, each accuracy centred so that guessing is 0 and perfection 1.

Rendering, choice of solved examples and scoring are those of nanochat's ``core_eval.py``, so that equal logits give an
equal number: of given answers the one with the lowest mean loss per token, elsewhere every token the likeliest one.
"""

import random
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import yaml

from mythos.config.base import ConfigError
from mythos.eval.local_data import find, read
from mythos.eval.scoring import Score, Scorer, mean_loops

NAME: Final = "core"
_EXAMPLES_SEED: Final = 1234
_SHUFFLE_SEED: Final = 1337

Row = dict[str, Any]
Pair = tuple[list[int], list[int]]


class CoreTask(NamedTuple):
    """One entry of ``core.yaml``."""

    name: str
    file: str
    kind: Literal["multiple_choice", "schema", "exact"]
    num_fewshot: int
    baseline: float
    """Accuracy of guessing."""
    delimiter: str = " "

    def centred(self, accuracy: float) -> float:
        """(accuracy - baseline) / (1 - baseline)."""
        return (accuracy - self.baseline) / (1 - self.baseline)


class TaskResult(NamedTuple):
    """What a model made of one task."""

    accuracy: float
    centred: float
    num_items: int
    mean_loops: float
    """Passes after which a scored token was read."""


def core_tasks() -> dict[str, CoreTask]:
    """The 22 tasks by name."""
    entries = yaml.safe_load(files("mythos.eval").joinpath("core.yaml").read_text(encoding="utf-8"))
    return {entry["name"]: CoreTask(**entry) for entry in entries}


def is_core(name: str) -> bool:
    """Whether a name of ``--tasks`` means CORE, as ``core``, or one of its tasks, as ``core_piqa``."""
    return name == NAME or (name.startswith(f"{NAME}_") and name.removeprefix(f"{NAME}_") in core_tasks())


def chosen(name: str, data_dir: Path | None) -> dict[str, CoreTask]:
    """The tasks behind such a name: one, or all whose file is there.

    Raises:
        ConfigError: the folder holds none of the files, or not the one that was asked for.
    """
    tasks, folder = core_tasks(), None if data_dir is None else str(data_dir)
    if name != NAME:
        task = tasks[name.removeprefix(f"{NAME}_")]
        find(task.file, folder)
        return {task.name: task}
    found = {task.name: task for task in tasks.values() if _is_there(task, folder)}
    if not found:
        raise ConfigError(f"--data-dir: {folder} holds no file of CORE; name the folder of the DCLM evaluation bundle.")
    return found


def core(results: dict[str, TaskResult]) -> float | None:
    """The mean of the centred accuracies; None unless all 22 tasks are there."""
    if results.keys() != core_tasks().keys():
        return None
    return sum(result.centred for result in results.values()) / len(results)


def evaluate_task(scorer: Scorer, task: CoreTask, data_dir: Path | None, limit: int | None = None) -> TaskResult:
    """Accuracy of a model on one task.

    Args:
        limit: so many items of the shuffled set; None for all.
    """
    (path,) = find(task.file, None if data_dir is None else str(data_dir))
    rows = read(path)
    random.Random(_SHUFFLE_SEED).shuffle(rows)
    rows = rows[:limit]
    questions = [pairs_of(scorer, task, row, _examples(rows, index, task)) for index, row in enumerate(rows)]
    scores = scorer.score([pair for pairs in questions for pair in pairs])
    in_order = iter(scores)
    num_right = 0
    for row, pairs in zip(rows, questions, strict=True):
        num_right += _is_right(task, row, [next(in_order) for _ in pairs])
    accuracy = num_right / len(rows)
    return TaskResult(accuracy, task.centred(accuracy), len(rows), mean_loops(scores))


def pairs_of(scorer: Scorer, task: CoreTask, row: Row, examples: Sequence[Row]) -> list[Pair]:
    """Context and scored tokens of every answer to a question (of an exact continuation: the only one)."""
    match task.kind:
        case "multiple_choice":
            before = "".join(f"{one['query']}{task.delimiter}{one['choices'][one['gold']]}\n\n" for one in examples)
            texts = [f"{before}{row['query']}{task.delimiter}{choice}" for choice in row["choices"]]
        case "schema":
            before = "".join(
                f"{one['context_options'][one['gold']]}{task.delimiter}{one['continuation']}\n\n" for one in examples
            )
            texts = [f"{before}{option}{task.delimiter}{row['continuation']}" for option in row["context_options"]]
        case "exact":
            before = "".join(f"{one['context'].strip()}{task.delimiter}{one['continuation']}\n\n" for one in examples)
            question = f"{before}{row['context'].strip()}{task.delimiter}"
            texts = [question.strip(), f"{question}{row['continuation']}"]
    token_lists = [[scorer.separator_id, *scorer.encode(text)] for text in texts]
    shortest = min(map(len, token_lists))
    if task.kind == "schema":
        suffix = min(_common(token_lists, lambda tokens, place: tokens[-1 - place]), shortest - 1)
        return [(tokens[:-suffix], tokens[-suffix:]) for tokens in token_lists]
    prefix = _common(token_lists, lambda tokens, place: tokens[place])
    if task.kind == "exact":
        return [(token_lists[1][:prefix], token_lists[1][prefix:])]
    prefix = min(prefix, shortest - 1)  # an answer that begins another one keeps its last token
    return [(tokens[:prefix], tokens[prefix:]) for tokens in token_lists]


def _common(token_lists: list[list[int]], token_at: Callable[[list[int], int], int]) -> int:
    """How many places, counted as ``token_at`` does, hold the same token in all lists."""
    shortest = min(map(len, token_lists))
    differing = (place for place in range(shortest) if len({token_at(tokens, place) for tokens in token_lists}) > 1)
    return next(differing, shortest)


def _examples(rows: list[Row], index: int, task: CoreTask) -> list[Row]:
    """Solved items shown before item ``index``, drawn from the others."""
    others = [other for other in range(len(rows)) if other != index]
    count = min(task.num_fewshot, len(others))
    return [rows[other] for other in random.Random(_EXAMPLES_SEED + index).sample(others, count)]


def _is_right(task: CoreTask, row: Row, scores: list[Score]) -> bool:
    if task.kind == "exact":
        return scores[0].is_greedy
    losses = [-score.log_prob / score.num_tokens for score in scores]
    return losses.index(min(losses)) == row["gold"]


def _is_there(task: CoreTask, folder: str | None) -> bool:
    try:
        return bool(find(task.file, folder))
    except ConfigError:
        if folder is None or not Path(folder).is_dir():
            raise
        return False
