"""The experts' weights and their products over rows that are sorted by expert."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from mythos.layers.precision import compute_dtype
from mythos.moe import fused


class Experts(nn.Module):
    """E SwiGLU layers as three stacked matrices, in the layout that expert parallelism converts."""

    shared_copies: fused.Copies | None = None  # of the class: expert parallelism makes instances without __init__

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
        return fused.from_rows(row_MD.to(dtype), end_E, self.weights, self.copies(dtype))

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

    def copies(self, dtype: torch.dtype) -> fused.Copies:
        """The weights for the kernels in ``dtype``: those of ``cast_once``, or new ones."""
        if self.shared_copies is not None and self.shared_copies.w2_EDF.dtype == dtype:
            return self.shared_copies
        return fused.copy_weights(self.weights, dtype)

    def apply_one(self, expert: int, row_MD: Tensor) -> Tensor:
        """Pass all rows through one expert."""
        hidden_MF = functional.silu(functional.linear(row_MD, self.w1[expert]))
        hidden_MF = hidden_MF * functional.linear(row_MD, self.w3[expert])
        return functional.linear(hidden_MF, self.w2[expert])


@contextmanager
def cast_once(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """Let all passes within use one copy of each expert for the fused kernels, instead of one for each pass.

    Gradients do not go through the copies: each pass adds its own to the parameters, in the parameters' dtype. The
    parameters must not change within, so leave before the optimiser's step; and they must be whole, which they are
    not under ZeRO-3. Where the kernels cannot run, nothing is copied.
    """
    experts = [module for module in model.modules() if isinstance(module, Experts)]
    experts = [module for module in experts if module.is_fused(module.w1, dtype)]
    for module in experts:
        module.shared_copies = fused.copy_weights(module.weights, dtype)
    try:
        yield
    finally:
        for module in experts:
            module.shared_copies = None
