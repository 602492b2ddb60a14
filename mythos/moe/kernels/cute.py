"""All functions of ``reference``, with quack's products where they are faster than Triton's (docs/performance.md).

Gate and value are interleaved here: in ``w13``, ``[E, 2F, D]``, in the saved products and in their gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mythos.layers.kernels import gated
from mythos.layers.kernels.gated import GroupedRows
from mythos.moe.kernels import products
from mythos.moe.kernels.memory_bound import combine
from mythos.moe.kernels.products import weight_gradient_w2
from mythos.moe.kernels.reference import SwigluGradients

__all__ = [
    "combine",
    "down",
    "gate_value",
    "gate_value_backward",
    "hidden_backward",
    "weight_gradient_w2",
    "weight_gradient_w13",
]


def gate_value(
    x_ND: Tensor,
    token_M: Tensor | None,
    assignment_M: Tensor | None,
    weight_A: Tensor | None,
    end_E: Tensor,
    w13_EGD: Tensor,
    save_products: bool,
) -> tuple[Tensor, Tensor]:
    """Compute gate and value, with SwiGLU and the routing weight in the epilogue."""
    num_rows, width = (x_ND if token_M is None else token_M).shape[0], w13_EGD.shape[1]
    if num_rows == 0:
        return x_ND.new_empty(0, width // 2), x_ND.new_empty(0, width)
    weight_M = _by_row(weight_A, assignment_M)
    hidden_MF, gate_value_MG = gated.gated(x_ND, w13_EGD, save_products, _rows(end_E, token_M), weight_M)
    return hidden_MF, x_ND.new_empty(0, width) if gate_value_MG is None else gate_value_MG


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
    """Compute the backward of product 2 and of SwiGLU in one kernel."""
    if gate_value_MG.shape[0] == 0:
        no_weights = None if weight_A is None else torch.zeros_like(weight_A)
        return SwigluGradients(gate_value_MG, gate_value_MG.new_empty(0, w2_EDF.shape[2]), no_weights)
    rows, weight_M = _rows(end_E, token_M), _by_row(weight_A, assignment_M)
    grad_MG, hidden_MF, grad_weight_M = gated.gated_backward(grad_ND, w2_EDF, gate_value_MG, rows, weight_M)
    if grad_weight_M is None or row_NK is None:
        return SwigluGradients(grad_MG, hidden_MF, None)
    padded_M = functional.pad(grad_weight_M, (0, 1))  # an assignment of another rank has row -1: the zero at the end
    return SwigluGradients(grad_MG, hidden_MF, padded_M[row_NK.flatten()])


def down(hidden_MF: Tensor, end_E: Tensor, w2_EDF: Tensor) -> Tensor:
    """Multiply hidden rows by w2: ``[M, D]``."""
    return _grouped(hidden_MF, w2_EDF.mT, end_E)


def gate_value_backward(grad_MG: Tensor, end_E: Tensor, w13_EGD: Tensor) -> Tensor:
    """Compute the gradient of the rows: ``[M, D]``."""
    return _grouped(grad_MG, w13_EGD, end_E)


def weight_gradient_w13(
    x_ND: Tensor,
    token_M: Tensor | None,
    grad_MG: Tensor,
    end_E: Tensor,
    accumulators: tuple[Tensor, Tensor],
    adds: bool,
) -> None:
    """Compute gradients of w1 and w3, ``[E, F, D]`` each, with Triton; clusters do not help sums over tokens."""
    products.weight_gradient_w13(x_ND, token_M, grad_MG, end_E, accumulators, adds, interleaved=True)


def _grouped(row_MK: Tensor, matrix_EKN: Tensor, end_E: Tensor) -> Tensor:
    if row_MK.shape[0] == 0:
        return row_MK.new_empty(0, matrix_EKN.shape[2])
    return gated.grouped(row_MK, matrix_EKN, _rows(end_E, None).offset_X)


def _rows(end_E: Tensor, token_M: Tensor | None) -> GroupedRows:
    return GroupedRows(functional.pad(end_E, (1, 0)), token_M)


def _by_row(weight_A: Tensor | None, assignment_M: Tensor | None) -> Tensor | None:
    return None if weight_A is None or assignment_M is None else weight_A.index_select(0, assignment_M)
