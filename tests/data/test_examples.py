from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config.base import ConfigError
from mythos.data.examples import Example, answers_in_windows, read_examples

EXAMPLES = [
    Example(difficulty=2, prompt="a", answer="x", window=0, start=1, answer_ids=(7,)),
    Example(difficulty=2, prompt="b", answer="y z", window=1, start=0, answer_ids=(8, 9)),
    Example(difficulty=1, prompt="c", answer="x x", window=1, start=2, answer_ids=(7, 7)),
]


def test_answers_are_read_from_the_windows() -> None:
    predictions_WS = np.array([[1, 7, 2, 3], [8, 9, 7, 6]])
    assert answers_in_windows(EXAMPLES, predictions_WS) == [(7,), (8, 9), (7, 6)]


def test_a_dataset_that_is_not_a_task_is_refused(make_dataset: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="no problems in the split 'validation'; make it with mythos-data tasks"):
        read_examples(make_dataset([5]))
