"""Read and write the problems stored beside a task's shards, and read predicted answers from windows."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mythos.config.base import ConfigError
from mythos.data.manifest import read_manifest


class Example(NamedTuple):
    """One problem, and the position of its answer among the windows of its split."""

    difficulty: int
    prompt: str
    """Words of the task's vocabulary, separated by spaces."""
    answer: str
    window: int
    start: int
    """Position in the window of the first target that belongs to the answer."""
    answer_ids: tuple[int, ...]


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write one JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(example._asdict()) + "\n" for example in examples)


def read_examples(directory: Path, split: str = "validation") -> list[Example]:
    """Read the problems of a packed task.

    Raises:
        ConfigError: the dataset is missing or damaged, or is not a task.
    """
    described = read_manifest(directory).splits.get(split)
    if described is None or described.examples_file is None:
        raise ConfigError(f"{directory} holds no problems in the split {split!r}; make it with mythos-data tasks.")
    path = directory / described.examples_file
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [Example(**row | {"answer_ids": tuple(row["answer_ids"])}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is missing or damaged; make it again with mythos-data tasks.") from None


def answers_in_windows(examples: Sequence[Example], predictions_WS: np.ndarray) -> list[tuple[int, ...]]:
    """Predicted tokens at the positions of each answer.

    If the predictions are the argmax at every position of the split's windows, an answer is correct in all its tokens
    exactly when greedy decoding from the prompt alone would have generated it.

    Args:
        predictions_WS: a token id for each target of each window of the split, in order.
    """
    return [
        tuple(predictions_WS[example.window, example.start : example.start + len(example.answer_ids)].tolist())
        for example in examples
    ]
