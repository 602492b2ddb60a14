"""The groups of ``conf/``, their options and what they are about; without Hydra, so that help texts name them."""

import re
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]


class Group(NamedTuple):
    """A group of the configuration, of which a run has one option."""

    name: str
    """As overrides name it, such as ``model/loop``."""
    default: str
    """Option that ``train.yaml`` names; ``null`` for none."""
    meaning: str
    """Comment of the group's line in ``train.yaml``."""
    options: tuple[str, ...]
    """Files of the group's folder, sorted."""


def default_config_dir() -> Path:
    """Return ``conf/`` of the installed package, or of the checkout."""
    packaged = _PACKAGE / "conf"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "conf"


def groups_of(config_dir: Path) -> list[Group]:
    """Return the groups that ``train.yaml`` of a folder lists, in its order; none if it cannot be read."""
    try:
        text = (config_dir / "train.yaml").read_text(encoding="utf-8")
    except OSError:
        return []
    return [
        Group(name, default, meaning or "", tuple(sorted(path.stem for path in (config_dir / name).glob("*.yaml"))))
        for name, default, meaning in re.findall(r"^ *- ([\w/-]+): (\S+)(?: +# (.*))?$", text, flags=re.M)
    ]
