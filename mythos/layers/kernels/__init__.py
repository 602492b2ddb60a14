"""Kernels of the layers, imported only where their compiler is installed and the tensors are on a CUDA device.

``heads`` is written in Triton; ``gated`` takes its products from quack-kernels.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor

VERSIONS: Final = {"flash-attn-4": "4.0.0b36", "quack-kernels": "0.6.5"}
"""Of packages that are entered below their public interfaces: others are left alone."""


def _is_installed(package: str) -> bool:
    try:
        return version(package) == VERSIONS[package]
    except PackageNotFoundError:
        return False


HAS_TRITON: Final = find_spec("triton") is not None
HAS_FLASH: Final = _is_installed("flash-attn-4")
HAS_QUACK: Final = _is_installed("quack-kernels")


@cache
def num_processors() -> int:
    """Multiprocessors of the current device; Triton's interpreter takes any number."""
    return torch.cuda.get_device_properties().multi_processor_count if torch.cuda.is_available() else 4


def aligned(matrices: Tensor) -> Tensor:
    """The same, copied where they do not start at 16 bytes, as in an engine's flat buffer."""
    return matrices.clone() if matrices.data_ptr() % 16 else matrices


def takes_gated(x: Tensor, dtype: torch.dtype, *widths: int) -> bool:
    """Whether ``gated`` has kernels for these: bf16 on a Hopper GPU, whose tensor memory accelerator wants 16 bytes."""
    return (
        x.is_cuda
        and HAS_QUACK
        and dtype == torch.bfloat16
        and all(width % 8 == 0 for width in widths)
        and torch.cuda.get_device_capability(x.device)[0] == 9
    )
