"""All functions of ``reference`` as Triton kernels."""

from torch import Tensor

from mythos.moe.kernels.memory_bound import combine, swiglu_backward
from mythos.moe.kernels.products import (
    down,
    down_backward,
    gate_value,
    gate_value_backward,
    weight_gradient_w2,
    weight_gradient_w13,
)
from mythos.moe.kernels.reference import SwigluGradients

__all__ = [
    "combine",
    "down",
    "down_backward",
    "gate_value",
    "gate_value_backward",
    "hidden_backward",
    "swiglu_backward",
    "weight_gradient_w2",
    "weight_gradient_w13",
]


def hidden_backward(
    grad_ND: Tensor,
    row_NK: Tensor | None,
    token_M: Tensor | None,
    assignment_M: Tensor | None,
    weight_A: Tensor | None,
    end_E: Tensor,
    w2_EDF: Tensor,
    gate_value_MG: Tensor,
) -> SwigluGradients:
    """Compute ``swiglu_backward`` of ``down_backward``; a tile of both in one kernel would not fit into registers."""
    return swiglu_backward(gate_value_MG, assignment_M, weight_A, down_backward(grad_ND, token_M, end_E, w2_EDF))
