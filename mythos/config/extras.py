"""The distribution's name and the command that installs its extras, for messages."""

from typing import Final

DISTRIBUTION: Final = "mythos-pretrain"


def install_command(extra: str = "") -> str:
    """Return the command that installs Mythos, with an extra of ``pyproject.toml`` if one is named.

    The distribution is on no package index yet, so the command installs from a clone.
    """
    target = f"'.[{extra}]'" if extra else "."
    return f"pip install -e {target} in a clone of Mythos"
