"""Kernels of the layers, imported only where their compiler is installed and the tensors are on a CUDA device.

``heads`` is written in Triton; ``gated`` uses the products of quack-kernels.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor

VERSIONS: Final = {"flash-attn-4": "4.0.0b36", "quack-kernels": "0.6.5"}
"""Supported versions of packages whose private interfaces are used; other versions are not used."""


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
    """Number of multiprocessors of the current device; any number works for Triton's interpreter."""
    return torch.cuda.get_device_properties().multi_processor_count if torch.cuda.is_available() else 4


def aligned(matrices: Tensor) -> Tensor:
    """Return the matrices, copied if their address is not a multiple of 16 bytes, as in an engine's flat buffer."""
    return matrices.clone() if matrices.data_ptr() % 16 else matrices


def supports_gated(x: Tensor, dtype: torch.dtype, *widths: int) -> bool:
    """Whether ``gated`` supports these: bf16 on a Hopper GPU, whose tensor memory accelerator needs 16 bytes."""
    return (
        x.is_cuda
        and HAS_QUACK
        and dtype == torch.bfloat16
        and all(width % 8 == 0 for width in widths)
        and torch.cuda.get_device_capability(x.device)[0] == 9
    )
