"""When a token stops thinking."""

from typing import Literal

from mythos.config.base import config


@config
class HaltingConfig:
    """``fixed``: every token runs all T passes of its step and leaves after the last one."""

    kind: Literal["fixed"] = "fixed"
