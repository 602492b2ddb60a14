"""Device and precision of a configuration."""

from typing import Literal

import torch

from mythos.config.base import ConfigError

Precision = Literal["fp32", "bf16", "bf16_weights"]


def choose_accelerator(device: str) -> Literal["cpu", "gpu"]:
    """Return Lightning's name of the device; ``auto`` prefers CUDA.

    Raises:
        ConfigError: CUDA was requested and is not available.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError("parallel.device is cuda but torch sees no CUDA device; set parallel.device=cpu.")
    return "gpu" if has_cuda and device != "cpu" else "cpu"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return autocast to bfloat16 for matrix products; disabled if the precision is fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32")
