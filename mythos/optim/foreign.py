"""An optimiser of another package: built from its entry point, and limited to what checkpoints can store."""

from typing import Any

import torch
from torch import Tensor

from mythos.config import plugins
from mythos.config.base import ConfigError
from mythos.config.optim import OPTIMIZER_PLUGINS, ForeignOptimConfig

_STEP = "step"


def build_foreign(config: ForeignOptimConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Call the entry point with the parameter groups and the configured options.

    Raises:
        ConfigError: it is not installed, cannot be imported, refuses the options or returns no optimiser.
    """
    optimizer = plugins.build(OPTIMIZER_PLUGINS, config.name, "optim", groups, options=config.options)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"optim.name: {config.name} returns a {type(optimizer).__name__}; it must return a torch.optim.Optimizer."
        )

    def check_once(*_: Any) -> None:
        handle.remove()
        _check_state(optimizer, config.name)

    handle = optimizer.register_step_post_hook(check_once)
    return optimizer


def _check_state(optimizer: torch.optim.Optimizer, name: str) -> None:
    """Refuse, after the first step, a state that a checkpoint cannot hold."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            shape = () if key == _STEP else tuple(parameter.shape)
            if not isinstance(value, Tensor) or tuple(value.shape) != shape:
                what = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise ConfigError(
                    f"optim.name: {name} keeps {key!r}, {what}, for a parameter of shape {tuple(parameter.shape)}; a "
                    f"checkpoint holds tensors of the parameter's shape and {_STEP!r} as a scalar tensor, so choose "
                    "another optimiser."
                )
