"""Kernels of the layers in Triton, imported only where Triton is installed and the tensors are on a CUDA device."""

from functools import cache
from importlib.util import find_spec
from typing import Final

import torch

HAS_TRITON: Final = find_spec("triton") is not None


@cache
def num_processors() -> int:
    """Multiprocessors of the current device; Triton's interpreter takes any number."""
    return torch.cuda.get_device_properties().multi_processor_count if torch.cuda.is_available() else 4
