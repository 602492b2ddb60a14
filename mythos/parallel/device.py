"""The device and precision that a configuration names."""

from typing import Literal

import torch

from mythos.config.base import ConfigError
from mythos.config.parallel import ParallelConfig


def choose_accelerator(config: ParallelConfig) -> str:
    """Lightning's name of the device; ``auto`` prefers CUDA.

    Raises:
        ConfigError: CUDA was asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigError("parallel.device is cuda but torch sees no CUDA device; set parallel.device=cpu.")
    return "gpu" if has_cuda and config.device != "cpu" else "cpu"


def precision_name(config: ParallelConfig) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name of the precision."""
    return "32-true" if config.precision == "fp32" else "bf16-mixed"
