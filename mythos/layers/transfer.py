"""Small tensors on their way from the host to the device."""

import torch
from torch import Tensor


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """A copy that nothing waits for. One from pageable memory would wait for all that the device still has to do."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
