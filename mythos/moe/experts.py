"""Weights of the experts, and their products with rows that are sorted by expert."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mythos.layers.precision import compute_dtype
from mythos.layers.shared import GradientAccumulators, can_accumulate
from mythos.moe import fused


class SharedExperts(NamedTuple):
    """Weight copies and gradient accumulators that the loops of a step share."""

    weight_copies: fused.WeightCopies
    accumulators: GradientAccumulators | None
    """None if parameters are not trained in fp32; then each loop computes a gradient of its own."""


class Experts(nn.Module):
    """E SwiGLU layers as three stacked matrices, in the layout that expert parallelism converts."""

    shared: SharedExperts | None = None  # a class attribute: expert parallelism creates instances without __init__
    rows_vary = False
    """Whether the number of rows varies between calls; quack's kernels would cache a plan for each number."""

    def __init__(self, num_experts: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(num_experts, hidden_dim, dim))
        self.w2 = nn.Parameter(torch.empty(num_experts, dim, hidden_dim))
        self.w3 = nn.Parameter(torch.empty(num_experts, hidden_dim, dim))

    def forward(self, row_MD: Tensor, end_E: Tensor) -> Tensor:
        """Apply each row's expert to it.

        Args:
            row_MD: rows sorted by expert.
            end_E: int32, end of each expert's rows; an expert without rows repeats the previous end. Results and
                gradients of rows after the last end are undefined.
        """
        dtype = compute_dtype(row_MD)
        if not self.is_fused(row_MD, dtype):
            return self.plain(row_MD, end_E)
        return fused.from_rows(row_MD.to(dtype), end_E, *self.fused_weights(dtype))

    def plain(self, row_MD: Tensor, end_E: Tensor) -> Tensor:
        """Compute ``forward`` with PyTorch operations only, on any device and in any dtype."""
        dtype = compute_dtype(row_MD)
        row_MD = row_MD.to(dtype)
        gate_MF = functional.grouped_mm(row_MD, self.w1.to(dtype).transpose(1, 2), offs=end_E)
        value_MF = functional.grouped_mm(row_MD, self.w3.to(dtype).transpose(1, 2), offs=end_E)
        hidden_MF = functional.silu(gate_MF) * value_MF
        return functional.grouped_mm(hidden_MF, self.w2.to(dtype).transpose(1, 2), offs=end_E)

    def is_fused(self, x: Tensor, dtype: torch.dtype) -> bool:
        """Whether the fused kernels support rows like ``x`` in ``dtype``."""
        _, hidden_dim, dim = self.w1.shape
        return fused.is_available(x, dtype, dim, hidden_dim)

    @property
    def weights(self) -> fused.Weights:
        """Parameters of the experts."""
        return fused.Weights(self.w1, self.w2, self.w3)

    def fused_weights(self, dtype: torch.dtype) -> tuple[fused.Weights | GradientAccumulators, fused.WeightCopies]:
        """Return the target of gradients, and weight copies for the kernels in ``dtype``: shared ones, or new ones."""
        shared = self.shared
        if shared is None or shared.weight_copies.w2_EDF.dtype != dtype:
            return self.weights, self._copy_weights(dtype)
        return self.weights if shared.accumulators is None else shared.accumulators, shared.weight_copies

    def share(self, dtype: torch.dtype) -> None:
        """See ``Sharing``; only with the fused kernels."""
        if not self.is_fused(self.w1, dtype):
            return
        weight_copies = self._copy_weights(dtype) if self.shared is None else self.shared.weight_copies
        accumulates = all(can_accumulate(weight, dtype) for weight in self.weights)
        self.shared = SharedExperts(weight_copies, GradientAccumulators.of(*self.weights) if accumulates else None)

    def unshare(self) -> None:
        """See ``Sharing``."""
        if self.shared is not None:
            del self.shared  # compiled code guards on whether the instance or the class holds it

    def _copy_weights(self, dtype: torch.dtype) -> fused.WeightCopies:
        interleaved = not self.rows_vary and fused.uses_interleaved_rows(self.weights, dtype)
        return fused.copy_weights(self.weights, dtype, interleaved)

    def apply_one(self, expert: int, row_MD: Tensor) -> Tensor:
        """Apply one expert to all rows."""
        hidden_MF = functional.silu(functional.linear(row_MD, self.w1[expert]))
        hidden_MF = hidden_MF * functional.linear(row_MD, self.w3[expert])
        return functional.linear(hidden_MF, self.w2[expert])
