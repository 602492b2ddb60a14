"""A measured value with its limits, and the verdict on several of them."""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """How healthy a value is; the larger, the worse."""

    GREEN = 0
    AMBER = 1
    RED = 2

    @property
    def word(self) -> str:
        """The name of the colour, in small letters."""
        return self.name.lower()


class Verdict(NamedTuple):
    """What a section shows, in one line."""

    level: Level
    text: str
    """Values, limits and, unless the level is green, what to do; plain text."""


class Check(NamedTuple):
    """A value that is healthy up to a limit; a value that is not a number is beyond every limit."""

    finding: str
    """Names the value, which it includes, without a full stop."""
    value: float
    amber: float | None
    """Amber beyond this value; None has no such limit."""
    red: float | None
    """Red beyond this value; None has no such limit."""
    advice: str
    """What to do, with the key to change, without a full stop."""
    is_floor: bool = False
    """Whether the limits are lower ones."""
    is_share: bool = False
    """Whether limits are shown in percent, as the value in the finding is."""

    @property
    def level(self) -> Level:
        """The level of the value; a value on a limit is within it."""
        beyond = [level for level, limit in ((Level.RED, self.red), (Level.AMBER, self.amber)) if self._is_over(limit)]
        return beyond[0] if beyond else Level.GREEN

    @property
    def limits(self) -> str:
        """The limits as text: amber above 0.02, red above 0.2."""
        side = "below" if self.is_floor else "above"
        named = (("amber", self.amber), ("red", self.red))
        form = "{:,.6g}%" if self.is_share else "{:,.6g}"
        scale = 100 if self.is_share else 1
        return ", ".join(f"{word} {side} {form.format(scale * limit)}" for word, limit in named if limit is not None)

    def _is_over(self, limit: float | None) -> bool:
        if limit is None:
            return False
        return not (self.value >= limit if self.is_floor else self.value <= limit)


def judge(checks: Iterable[Check | None]) -> Verdict | None:
    """The verdict on all checks that could be made: the level of the worst of them; None without any.

    A green verdict states all values, another one those that are at the worst level, with what to do.
    """
    made = [check for check in checks if check is not None]
    if not made:
        return None
    level = max(check.level for check in made)
    sentences = []
    for check in made:
        if check.level == level:
            advice = f" {_capital(check.advice)}." if level > Level.GREEN else ""
            sentences.append(f"{_capital(check.finding)} ({check.limits}).{advice}")
    return Verdict(level, " ".join(sentences))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
