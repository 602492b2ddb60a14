"""The experts' weights and their products over rows that are sorted by expert."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mythos.layers.precision import compute_dtype
from mythos.layers.shared import GradientAccumulators, can_accumulate
from mythos.moe import fused


class SharedExperts(NamedTuple):
    """What the passes of a step share."""

    weight_copies: fused.WeightCopies
    accumulators: GradientAccumulators | None
    """None where parameters are not trained in fp32: then each pass gives them a gradient of its own."""


class Experts(nn.Module):
    """E SwiGLU layers as three stacked matrices, in the layout that expert parallelism converts."""

    shared: SharedExperts | None = None  # of the class: expert parallelism makes instances without __init__
    rows_vary = False
    """Whether calls have ever new numbers of rows: quack's kernels would remember a plan for each."""

    def __init__(self, num_experts: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(num_experts, hidden_dim, dim))
        self.w2 = nn.Parameter(torch.empty(num_experts, dim, hidden_dim))
        self.w3 = nn.Parameter(torch.empty(num_experts, hidden_dim, dim))

    def forward(self, row_MD: Tensor, end_E: Tensor) -> Tensor:
        """Pass each row through its expert.

        Args:
            row_MD: rows sorted by expert.
            end_E: int32, where each expert's rows end; an expert without rows repeats the end before it. What rows
                past the last end give, and their gradients, are undefined.
        """
        dtype = compute_dtype(row_MD)
        if not self.is_fused(row_MD, dtype):
            return self.plain(row_MD, end_E)
        return fused.from_rows(row_MD.to(dtype), end_E, *self.fused_weights(dtype))

    def plain(self, row_MD: Tensor, end_E: Tensor) -> Tensor:
        """``forward`` in PyTorch's operations alone, on any device and in any dtype."""
        dtype = compute_dtype(row_MD)
        row_MD = row_MD.to(dtype)
        gate_MF = functional.grouped_mm(row_MD, self.w1.to(dtype).transpose(1, 2), offs=end_E)
        value_MF = functional.grouped_mm(row_MD, self.w3.to(dtype).transpose(1, 2), offs=end_E)
        hidden_MF = functional.silu(gate_MF) * value_MF
        return functional.grouped_mm(hidden_MF, self.w2.to(dtype).transpose(1, 2), offs=end_E)

    def is_fused(self, x: Tensor, dtype: torch.dtype) -> bool:
        """Whether the fused kernels take rows like ``x`` in ``dtype``."""
        _, hidden_dim, dim = self.w1.shape
        return fused.is_available(x, dtype, dim, hidden_dim)

    @property
    def weights(self) -> fused.Weights:
        """The parameters."""
        return fused.Weights(self.w1, self.w2, self.w3)

    def fused_weights(self, dtype: torch.dtype) -> tuple[fused.Weights | GradientAccumulators, fused.WeightCopies]:
        """What gradients go to, and the weights for the kernels in ``dtype``: those that are shared, or new ones."""
        shared = self.shared
        if shared is None or shared.weight_copies.w2_EDF.dtype != dtype:
            return self.weights, self._copies(dtype)
        return self.weights if shared.accumulators is None else shared.accumulators, shared.weight_copies

    def share(self, dtype: torch.dtype) -> None:
        """As ``Sharing`` says, where the fused kernels run."""
        if not self.is_fused(self.w1, dtype):
            return
        copies = self._copies(dtype) if self.shared is None else self.shared.weight_copies
        can_sum = all(can_accumulate(weight, dtype) for weight in self.weights)
        self.shared = SharedExperts(copies, GradientAccumulators.of(*self.weights) if can_sum else None)

    def unshare(self) -> None:
        """As ``Sharing`` says."""
        if self.shared is not None:
            del self.shared  # compiled code is guarded by whether it is the class's

    def _copies(self, dtype: torch.dtype) -> fused.WeightCopies:
        interleaved = not self.rows_vary and fused.uses_interleaved_rows(self.weights, dtype)
        return fused.copy_weights(self.weights, dtype, interleaved)

    def apply_one(self, expert: int, row_MD: Tensor) -> Tensor:
        """Pass all rows through one expert."""
        hidden_MF = functional.silu(functional.linear(row_MD, self.w1[expert]))
        hidden_MF = hidden_MF * functional.linear(row_MD, self.w3[expert])
        return functional.linear(hidden_MF, self.w2[expert])
