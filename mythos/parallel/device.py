"""The device and precision that a configuration names."""

from typing import Literal

import torch

from mythos.config.base import ConfigError

Precision = Literal["fp32", "bf16", "bf16_weights"]


def choose_accelerator(device: str) -> Literal["cpu", "gpu"]:
    """Lightning's name of the device; ``auto`` prefers CUDA.

    Raises:
        ConfigError: CUDA was asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError("parallel.device is cuda but torch sees no CUDA device; set parallel.device=cpu.")
    return "gpu" if has_cuda and device != "cpu" else "cpu"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16, everything else in fp32, unless the precision is fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32")
