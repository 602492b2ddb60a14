"""What an alarm states."""

from typing import NamedTuple


class Alarm(NamedTuple):
    """A value that crossed its limit."""

    name: str
    figure: float
    limit: float
    sentence: str
