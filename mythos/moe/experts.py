"""The experts' weights and their products over rows that are sorted by expert."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Experts(nn.Module):
    """E SwiGLU layers as three stacked matrices, in the layout that expert parallelism converts."""

    def __init__(self, num_experts: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(num_experts, hidden_dim, dim))
        self.w2 = nn.Parameter(torch.empty(num_experts, dim, hidden_dim))
        self.w3 = nn.Parameter(torch.empty(num_experts, hidden_dim, dim))

    def forward(self, row_MD: Tensor, end_E: Tensor) -> Tensor:
        """Pass each row through its expert.

        Args:
            row_MD: rows sorted by expert.
            end_E: int32, where each expert's rows end; an expert without rows repeats the end before it.
        """
        dtype = _compute_dtype(row_MD)
        row_MD = row_MD.to(dtype)
        gate_MF = functional.grouped_mm(row_MD, self.w1.to(dtype).transpose(1, 2), offs=end_E)
        value_MF = functional.grouped_mm(row_MD, self.w3.to(dtype).transpose(1, 2), offs=end_E)
        hidden_MF = functional.silu(gate_MF) * value_MF
        return functional.grouped_mm(hidden_MF, self.w2.to(dtype).transpose(1, 2), offs=end_E)

    def apply_one(self, expert: int, row_MD: Tensor) -> Tensor:
        """Pass all rows through one expert."""
        hidden_MF = functional.silu(functional.linear(row_MD, self.w1[expert]))
        hidden_MF = hidden_MF * functional.linear(row_MD, self.w3[expert])
        return functional.linear(hidden_MF, self.w2[expert])


def _compute_dtype(x: Tensor) -> torch.dtype:
    """The autocast dtype where autocast is on; grouped products do not look it up themselves."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
