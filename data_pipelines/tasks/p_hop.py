"""p-hop induction (Sanford et al. 2024, arXiv 2402.09268; Saunshi et al. 2025, arXiv 2502.17416)."""

import random
import string

from data_pipelines.tasks.problem import Problem, Task
from mythos.config.base import ConfigError

_NUM_TRIES = 200


class PHop(Task):
    """Follow a chain of earlier occurrences.

    From the last letter of a sequence, one hop goes to the letter after its latest earlier occurrence; p hops repeat
    this. The answer is the letter that the last hop reaches. No letter follows itself, so every hop moves.

    Prompt: p, the sequence, ``>``.
    """

    name = "p-hop"

    def __init__(self, num_letters: int, length: int, difficulties: list[int]) -> None:
        if not 3 <= num_letters <= 26:
            raise ConfigError(f"--letters is {num_letters}; give 3 to 26.")
        self._letters = tuple(string.ascii_uppercase[:num_letters])
        self._length = length
        self._difficulties = difficulties

    @property
    def words(self) -> tuple[str, ...]:
        return (*(f"p{p}" for p in self._difficulties), *self._letters, ">")

    def draw(self, difficulty: int, generator: random.Random) -> Problem:
        for _ in range(_NUM_TRIES):
            sequence = [generator.choice(self._letters)]
            while len(sequence) < self._length:
                letter = generator.choice(self._letters)
                if letter != sequence[-1]:
                    sequence.append(letter)
            index = hop(sequence, difficulty)
            if index is not None:
                return Problem(difficulty, (f"p{difficulty}", *sequence, ">"), (sequence[index],))
        raise ConfigError(
            f"--hops has {difficulty}, but random sequences of --length {self._length} are too short for so many; "
            "lengthen them, or set fewer hops."
        )


def hop(sequence: list[str], num_hops: int) -> int | None:
    """Index that ``num_hops`` hops from the last letter lead to; None if a letter has no earlier occurrence."""
    index = len(sequence) - 1
    for _ in range(num_hops):
        earlier = next((i for i in range(index - 1, -1, -1) if sequence[i] == sequence[index]), None)
        if earlier is None:
            return None
        index = earlier + 1
    return index
