"""Base class of tasks: problems by difficulty, each permanently assigned to training or test."""

import hashlib
import random
from abc import ABC, abstractmethod
from typing import Final, NamedTuple

from tqdm import tqdm

from mythos.config.base import ConfigError

_TEST_SHARE: Final = 8
"""One in ``_TEST_SHARE`` of all possible problems is a test problem."""
_NUM_TRIES: Final = 2000


class Problem(NamedTuple):
    """One question with its answer, in words of the task's vocabulary."""

    difficulty: int
    prompt: tuple[str, ...]
    answer: tuple[str, ...]


class Task(ABC):
    """A family of problems."""

    name: str

    @property
    @abstractmethod
    def words(self) -> tuple[str, ...]:
        """Vocabulary of the task."""

    @abstractmethod
    def draw(self, difficulty: int, generator: random.Random) -> Problem:
        """Draw a random problem.

        Raises:
            ConfigError: the task has no problem of this difficulty.
        """

    def facts(self) -> tuple[Problem, ...]:
        """Problems that all belong to training, since the others cannot be solved without them."""
        return ()


def is_test(task: Task, prompt: tuple[str, ...]) -> bool:
    """Whether a problem belongs to the test, by a hash of its prompt, so independent of the seed."""
    text = " ".join([task.name, *prompt])
    return hashlib.blake2b(text.encode(), digest_size=8).digest()[0] < 256 // _TEST_SHARE


def draw_problems(task: Task, difficulties: list[int], number: int, seed: int, test: bool) -> list[Problem]:
    """Draw ``number`` training or test problems, cycling through the difficulties; test problems are distinct.

    Raises:
        ConfigError: a difficulty has too few different problems.
    """
    seen: set[tuple[str, ...]] = set()
    problems = []
    split = "test" if test else "training"
    for index in tqdm(range(number), desc=f"drawing {split} problems", disable=None):
        difficulty = difficulties[index % len(difficulties)]
        generator = random.Random(f"{task.name} {seed} {test} {index}")
        problem = _draw_from_split(task, difficulty, generator, test, seen)
        if test:
            seen.add(problem.prompt)
        problems.append(problem)
    return problems


def _draw_from_split(
    task: Task, difficulty: int, generator: random.Random, test: bool, seen: set[tuple[str, ...]]
) -> Problem:
    for _ in range(_NUM_TRIES):
        problem = task.draw(difficulty, generator)
        if is_test(task, problem.prompt) == test and problem.prompt not in seen:
            return problem
    raise ConfigError(
        f"{task.name}: {_NUM_TRIES} draws of difficulty {difficulty} gave no new problem for the "
        f"{'test' if test else 'training'}; raise the difficulty, or reduce the number of problems."
    )
