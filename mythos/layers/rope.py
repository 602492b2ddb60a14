"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), in the half-split layout."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines of the angles at each position, fp32, ``[B, S, 1, width / 2]``."""

    cos: Tensor
    sin: Tensor


def rotation_at(positions_BS: Tensor, width: int, base: float) -> Rotation:
    """Return the rotation by angles position * base ** (-2i / width) for i in 0 .. width/2 - 1."""
    pair = torch.arange(0, width, 2, device=positions_BS.device, dtype=torch.float32)
    angle = positions_BS[:, :, None, None].float() * base ** (-pair / width)
    return Rotation(angle.cos(), angle.sin())


def rotate(x_BSHP: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (x_i, x_{i + P/2}); preserves norms and the dtype."""
    first, second = x_BSHP.float().chunk(2, dim=-1)
    rotated = torch.cat(
        (first * rotation.cos - second * rotation.sin, second * rotation.cos + first * rotation.sin), dim=-1
    )
    return rotated.to(x_BSHP.dtype)
