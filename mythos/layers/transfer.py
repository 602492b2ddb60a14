"""Transfer of small tensors from the host to the device."""

import torch
from torch import Tensor


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Copy without synchronisation; a copy from pageable memory would wait for all queued work of the device."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
