"""Sums over ranks, in one all-reduce and one copy to the host."""

import lightning.pytorch as pl
import torch
from torch import Tensor


def sum_over_ranks(trainer: pl.Trainer, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum each part over ranks, in fp64, and return the sums on the host; waits for the device.

    Every rank calls it in the same steps, with the same names and shapes.
    """
    device = trainer.strategy.root_device
    flat = torch.cat([part.detach().to(device, torch.float64).flatten() for part in parts.values()])
    total = trainer.strategy.reduce(flat, reduce_op="sum")
    assert isinstance(total, Tensor)
    sums = total.cpu().split([part.numel() for part in parts.values()])
    return {name: piece.view(part.shape) for piece, (name, part) in zip(sums, parts.items(), strict=True)}


def padded(x_T: Tensor, num_loops: int) -> Tensor:
    """``x_T`` with zeros after its own loops, ``[num_loops, ...]``: ranks may run different numbers of loops."""
    return torch.cat((x_T, x_T.new_zeros(num_loops - x_T.shape[0], *x_T.shape[1:])))
