"""Noise for the initial state: a function of (seed, sample id), independent of the batch and the device."""

import math

import torch
from torch import Tensor, nn

_MASK = 0xFFFFFFFF


class Noise(nn.Module):
    """``noise`` as a module that can be compiled: its thirty operations on 64-bit numbers become one kernel."""

    def forward(self, seed: int, sample_ids_B: Tensor, length: int, dim: int) -> Tensor:
        """See ``noise``."""
        return noise(seed, sample_ids_B, length, dim)


def noise(seed: int, sample_ids_B: Tensor, length: int, dim: int) -> Tensor:
    """Return standard normal numbers ``[B, length, dim]``, fp32, by the Box-Muller transform of hashed counters."""
    counter = torch.arange(length * dim, device=sample_ids_B.device)
    key_B = _hash(_hash(sample_ids_B & _MASK) ^ _hash((sample_ids_B >> 32) + (seed * 0x9E3779B1 & _MASK)))
    first = _hash(counter + key_B[:, None])
    second = _hash(first ^ 0x5BD1E995)
    radius = torch.sqrt(-2 * torch.log((first.float() + 1) * 2**-32).clamp(max=0))
    angle = second.float() * (2 * math.pi * 2**-32)
    return (radius * torch.cos(angle)).view(-1, length, dim)


def _hash(x: Tensor) -> Tensor:
    """Mix the low 32 bits of int64 numbers (the "lowbias32" constants of C. Wellons' hash prospector)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)
