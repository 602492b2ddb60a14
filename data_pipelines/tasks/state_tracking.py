"""Tasks whose answer is the final state of an automaton."""

import random
from itertools import permutations

from data_pipelines.tasks.problem import Problem, Task
from mythos.config.base import ConfigError


class Parity(Task):
    """Whether the number of ones is odd (Graves 2016, arXiv 1603.08983).

    Prompt: bits, then ``=``. Answer: one bit.
    """

    name = "parity"

    @property
    def words(self) -> tuple[str, ...]:
        return ("0", "1", "=")

    def draw(self, difficulty: int, generator: random.Random) -> Problem:
        if difficulty < 1:
            raise ConfigError(f"--bits has {difficulty}; give at least 1.")
        bits = [generator.randrange(2) for _ in range(difficulty)]
        return Problem(difficulty, (*map(str, bits), "="), (str(sum(bits) % 2),))


class Permutations(Task):
    """The word problem of a symmetric group (Merrill, Petty and Sabharwal 2024, arXiv 2404.08819).

    Prompt: permutations of ``num_items`` items, applied from left to right, then ``=``. Answer: their composition. A
    word such as ``s120`` gives the source position of each item.
    """

    name = "permutations"

    def __init__(self, num_items: int) -> None:
        if not 2 <= num_items <= 6:
            raise ConfigError(f"--items is {num_items}; give 2 to 6, whose permutations are 2 to 720 words.")
        self._elements = list(permutations(range(num_items)))

    @property
    def words(self) -> tuple[str, ...]:
        return (*map(_spell, self._elements), "=")

    def draw(self, difficulty: int, generator: random.Random) -> Problem:
        if difficulty < 1:
            raise ConfigError(f"--steps has {difficulty}; give at least 1.")
        steps = [generator.choice(self._elements) for _ in range(difficulty)]
        state = tuple(range(len(self._elements[0])))
        for step in steps:
            state = tuple(state[position] for position in step)
        return Problem(difficulty, (*map(_spell, steps), "="), (_spell(state),))


def _spell(element: tuple[int, ...]) -> str:
    return "s" + "".join(map(str, element))
