"""Names of checkpoints: ``step-`` and the step in eight digits, or more if it needs them."""

import re
from collections.abc import Iterable
from typing import Final

_NAME: Final = re.compile(r"step-(\d{8,})", re.ASCII)
_LEFTOVER: Final = re.compile(r"\.(step-\d{8,})\.(tmp|old|fetch)", re.ASCII)


def step_name(step: int) -> str:
    """Name of the checkpoint of a step."""
    return f"step-{step:08d}"


def step_of(name: str) -> int:
    """Step of a checkpoint's name.

    Raises:
        ValueError: it is not the name of a checkpoint.
    """
    parsed = _NAME.fullmatch(name)
    if parsed is None or step_name(int(parsed[1])) != name:
        raise ValueError(f"{name} is not the name of a checkpoint")
    return int(parsed[1])


def is_step_name(name: str) -> bool:
    """Whether this is the name of a checkpoint, and not, say, of a user's copy ``step-00000300.bak``."""
    try:
        step_of(name)
    except ValueError:
        return False
    return True


def step_names(names: Iterable[str]) -> list[str]:
    """The names of checkpoints among ``names``, by step."""
    return sorted((name for name in names if is_step_name(name)), key=step_of)


def is_leftover(name: str) -> bool:
    """Whether this is the name of what a killed save, deletion or download of a checkpoint leaves."""
    parsed = _LEFTOVER.fullmatch(name)
    return parsed is not None and is_step_name(parsed[1])
