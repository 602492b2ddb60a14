"""Tasks of n-ary addition and of modular expressions."""

import random

from data_pipelines.tasks.problem import Problem, Task
from mythos.config.base import ConfigError


class Addition(Task):
    """n-ary addition (Saunshi et al. 2025, arXiv 2502.17416).

    Prompt: n numbers of ``num_digits`` digits each, joined by ``+``, then ``=``. Answer: the sum, padded with zeros to
    the width of the largest sum of any difficulty, so that its length reveals nothing.
    """

    name = "addition"

    def __init__(self, num_digits: int, difficulties: list[int]) -> None:
        if num_digits < 1:
            raise ConfigError(f"--digits is {num_digits}; give at least 1.")
        self._num_digits = num_digits
        self._width = len(str(max(difficulties) * (10**num_digits - 1)))

    @property
    def words(self) -> tuple[str, ...]:
        return (*"0123456789", "+", "=")

    def draw(self, difficulty: int, generator: random.Random) -> Problem:
        if difficulty < 2:
            raise ConfigError(f"--numbers has {difficulty}; a sum has at least 2.")
        numbers = [generator.randrange(10**self._num_digits) for _ in range(difficulty)]
        prompt = "+".join(f"{number:0{self._num_digits}d}" for number in numbers) + "="
        return Problem(difficulty, tuple(prompt), tuple(f"{sum(numbers):0{self._width}d}"))


class Mano(Task):
    """Mano: arithmetic modulo a prime in prefix notation (Zhu et al. 2025, arXiv 2510.25741).

    Prompt: an expression whose number of operators ``+ - *`` is the difficulty, then ``=``. Answer: its value.
    """

    name = "mano"

    def __init__(self, modulus: int) -> None:
        if modulus < 2:
            raise ConfigError(f"--modulus is {modulus}; give at least 2.")
        self._modulus = modulus

    @property
    def words(self) -> tuple[str, ...]:
        return (*(str(number) for number in range(self._modulus)), "+", "-", "*", "=")

    def draw(self, difficulty: int, generator: random.Random) -> Problem:
        if difficulty < 1:
            raise ConfigError(f"--operations has {difficulty}; an expression has at least 1.")
        expression = self._expression(difficulty, generator)
        return Problem(difficulty, (*expression, "="), (str(evaluate(expression, self._modulus)),))

    def _expression(self, num_operations: int, generator: random.Random) -> list[str]:
        if num_operations == 0:
            return [str(generator.randrange(self._modulus))]
        num_left = generator.randrange(num_operations)
        left = self._expression(num_left, generator)
        return [generator.choice("+-*"), *left, *self._expression(num_operations - 1 - num_left, generator)]


def evaluate(expression: list[str], modulus: int) -> int:
    """Evaluate a prefix expression; the value is in [0, modulus)."""
    stack: list[int] = []
    for word in reversed(expression):
        match word:
            case "+":
                stack.append(stack.pop() + stack.pop())
            case "-":
                stack.append(stack.pop() - stack.pop())
            case "*":
                stack.append(stack.pop() * stack.pop())
            case _:
                stack.append(int(word))
        stack[-1] %= modulus
    return stack.pop()
