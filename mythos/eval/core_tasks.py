"""CORE (DCLM, arXiv 2406.11794): 22 tasks, each accuracy centred so that guessing scores 0 and perfection 1.

Rendering, the selection of few-shot examples and scoring are those of nanochat's ``core_eval.py``, so that equal
logits give an equal metric. Among given answers, the prediction is the one with the lowest mean loss per token; an
exact continuation counts if every one of its tokens is predicted.
"""

import math
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
    """Accuracy of random guessing."""
    delimiter: str = " "

    def centred(self, accuracy: float) -> float:
        """Centred accuracy, (accuracy - baseline) / (1 - baseline)."""
        return self.scaled(accuracy - self.baseline)

    def scaled(self, difference: float) -> float:
        """A difference of accuracies as one of centred accuracies."""
        return difference / (1 - self.baseline)


class TaskResult(NamedTuple):
    """Result of a model on one task."""

    accuracy: float
    centred: float
    num_items: int
    mean_loops: float
    """Average number of loops of a scored token."""

    @property
    def error(self) -> float | None:
        """Standard error of the accuracy; None for a single item."""
        p, n = self.accuracy, self.num_items
        return math.sqrt(p * (1 - p) / (n - 1)) if n > 1 else None


def core_tasks() -> dict[str, CoreTask]:
    """Return the 22 tasks by name."""
    entries = yaml.safe_load(files("mythos.eval").joinpath("core.yaml").read_text(encoding="utf-8"))
    return {entry["name"]: CoreTask(**entry) for entry in entries}


def is_core(name: str) -> bool:
    """Whether a name of ``--tasks`` is CORE itself (``core``) or one of its tasks (such as ``core_piqa``)."""
    return name == NAME or (name.startswith(f"{NAME}_") and name.removeprefix(f"{NAME}_") in core_tasks())


def select_tasks(name: str, data_dir: Path | None) -> dict[str, CoreTask]:
    """Return the tasks that such a name selects: one, or all whose file exists.

    Raises:
        ConfigError: the folder contains none of the files, or not the requested one.
    """
    tasks, folder = core_tasks(), None if data_dir is None else str(data_dir)
    if name != NAME:
        task = tasks[name.removeprefix(f"{NAME}_")]
        find(task.file, folder)
        return {task.name: task}
    available = {task.name: task for task in tasks.values() if _exists(task, folder)}
    if not available:
        raise ConfigError(f"--data-dir: {folder} holds no file of CORE; name the folder of the DCLM evaluation bundle.")
    return available


def core(results: dict[str, TaskResult]) -> float | None:
    """Mean of the centred accuracies; None unless there is a result for each of the 22 tasks."""
    if results.keys() != core_tasks().keys():
        return None
    return sum(result.centred for result in results.values()) / len(results)


def core_error(results: dict[str, TaskResult]) -> float | None:
    """Standard error of ``core``, whose items are independent; None if that of a task is unknown."""
    tasks = core_tasks()
    errors = [None if result.error is None else tasks[name].scaled(result.error) for name, result in results.items()]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(errors) if len(known) == len(errors) else None


def evaluate_task(scorer: Scorer, task: CoreTask, data_dir: Path | None, limit: int | None = None) -> TaskResult:
    """Evaluate a model on one task.

    Args:
        limit: number of items of the shuffled set; None for all.
    """
    (path,) = find(task.file, None if data_dir is None else str(data_dir))
    rows = read(path)
    random.Random(_SHUFFLE_SEED).shuffle(rows)
    rows = rows[:limit]
    questions = [pairs_of(scorer, task, row, _examples(rows, index, task)) for index, row in enumerate(rows)]
    scores = scorer.score([pair for pairs in questions for pair in pairs])
    ordered_scores = iter(scores)
    num_correct = 0
    for row, pairs in zip(rows, questions, strict=True):
        num_correct += _is_correct(task, row, [next(ordered_scores) for _ in pairs])
    accuracy = num_correct / len(rows)
    return TaskResult(accuracy, task.centred(accuracy), len(rows), mean_loops(scores))


def pairs_of(scorer: Scorer, task: CoreTask, row: Row, examples: Sequence[Row]) -> list[Pair]:
    """Context and scored tokens of every answer to a question; an exact continuation has one answer."""
    match task.kind:
        case "multiple_choice":
            shots = "".join(f"{one['query']}{task.delimiter}{one['choices'][one['gold']]}\n\n" for one in examples)
            texts = [f"{shots}{row['query']}{task.delimiter}{choice}" for choice in row["choices"]]
        case "schema":
            shots = "".join(
                f"{one['context_options'][one['gold']]}{task.delimiter}{one['continuation']}\n\n" for one in examples
            )
            texts = [f"{shots}{option}{task.delimiter}{row['continuation']}" for option in row["context_options"]]
        case "exact":
            shots = "".join(f"{one['context'].strip()}{task.delimiter}{one['continuation']}\n\n" for one in examples)
            question = f"{shots}{row['context'].strip()}{task.delimiter}"
            texts = [question.strip(), f"{question}{row['continuation']}"]
    token_lists = [[scorer.separator_id, *scorer.encode(text)] for text in texts]
    shortest = min(map(len, token_lists))
    if task.kind == "schema":
        suffix = min(_common_length(token_lists, lambda tokens, index: tokens[-1 - index]), shortest - 1)
        return [(tokens[:-suffix], tokens[-suffix:]) for tokens in token_lists]
    prefix = _common_length(token_lists, lambda tokens, index: tokens[index])
    if task.kind == "exact":
        return [(token_lists[1][:prefix], token_lists[1][prefix:])]
    prefix = min(prefix, shortest - 1)  # an answer that is a prefix of another one keeps its last token
    return [(tokens[:prefix], tokens[prefix:]) for tokens in token_lists]


def _common_length(token_lists: list[list[int]], token_at: Callable[[list[int], int], int]) -> int:
    """Number of leading positions, as ``token_at`` counts them, at which all lists have the same token."""
    shortest = min(map(len, token_lists))
    differing = (index for index in range(shortest) if len({token_at(tokens, index) for tokens in token_lists}) > 1)
    return next(differing, shortest)


def _examples(rows: list[Row], index: int, task: CoreTask) -> list[Row]:
    """Few-shot examples of item ``index``, drawn from the other items."""
    others = [other for other in range(len(rows)) if other != index]
    count = min(task.num_fewshot, len(others))
    return [rows[other] for other in random.Random(_EXAMPLES_SEED + index).sample(others, count)]


def _is_correct(task: CoreTask, row: Row, scores: list[Score]) -> bool:
    if task.kind == "exact":
        return scores[0].is_greedy
    losses = [-score.log_prob / score.num_tokens for score in scores]
    return losses.index(min(losses)) == row["gold"]


def _exists(task: CoreTask, folder: str | None) -> bool:
    try:
        return bool(find(task.file, folder))
    except ConfigError:
        if folder is None or not Path(folder).is_dir():
            raise
        return False
