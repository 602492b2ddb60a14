"""Tables of vectors, one for each loop."""

import torch
from torch import Tensor, nn

from mythos.loop.part import LoopInputs


class LoopTable(nn.Module):
    """One vector for each loop; loops beyond the table read its last row."""

    def __init__(self, max_loops: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_loops, dim))

    def forward(self, inputs: LoopInputs) -> Tensor:
        """Return the row of a loop, ``[D]``, or ``[B, 1, D]`` if sequences are in different loops."""
        row = self.weight[inputs.table_row(self.weight.shape[0])]
        return row if row.dim() == 1 else row[:, None]
