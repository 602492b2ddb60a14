"""Reference implementation of the kernels in PyTorch, for tests and for devices without kernels.

An assignment routes one token to one of its K experts and has the index n * K + k (suffix A); a row is an assignment in
the order of experts (suffix M). The rows of one expert are contiguous and end at ``end_E``. ``token_M`` is the token of
a row and ``assignment_M`` its assignment; None means that the input is rows already, with row m for token m. ``w13`` is
w1 and w3, stacked; each module defines the layout of ``w13`` and of the products (``cute`` interleaves them).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class SwigluGradients(NamedTuple):
    """Results of the backward of SwiGLU."""

    gate_value_MG: Tensor
    hidden_MF: Tensor
    """The weighted hidden rows, recomputed instead of saved."""
    weight_A: Tensor | None
    """fp32, for each assignment; None if rows have no weights."""


def gate_value(
    x_ND: Tensor,
    token_M: Tensor | None,
    assignment_M: Tensor | None,
    weight_A: Tensor | None,
    end_E: Tensor,
    w13_2EFD: Tensor,
    save_products: bool,
) -> tuple[Tensor, Tensor]:
    """Return h = w silu(g) v with g = x W_1, v = x W_3, and [g, v], ``[M, 2F]``, empty unless ``save_products``."""
    row_MD = _gathered(x_ND, token_M)
    gate_MF = functional.grouped_mm(row_MD, w13_2EFD[0].transpose(1, 2), offs=end_E)
    value_MF = functional.grouped_mm(row_MD, w13_2EFD[1].transpose(1, 2), offs=end_E)
    hidden_MF = functional.silu(gate_MF.float()) * value_MF.float() * _by_row(weight_A, assignment_M)
    gate_value_MG = torch.cat((gate_MF, value_MF), dim=-1)
    return hidden_MF.to(x_ND.dtype), gate_value_MG if save_products else gate_value_MG[:0].clone()


def swiglu_backward(
    gate_value_MG: Tensor, assignment_M: Tensor | None, weight_A: Tensor | None, grad_hidden_MF: Tensor
) -> SwigluGradients:
    """Compute dv = w a silu(g), dg = w a v silu'(g), dw = sum_f a silu(g) v for h = w silu(g) v with gradient a."""
    gate_MF, value_MF = gate_value_MG.float().chunk(2, dim=-1)
    weight_M1 = _by_row(weight_A, assignment_M)
    sigmoid_MF = gate_MF.sigmoid()
    activation_MF = gate_MF * sigmoid_MF
    grad_MF = grad_hidden_MF.float() * weight_M1
    grad_gate_MF = grad_MF * value_MF * sigmoid_MF * (1 + gate_MF * (1 - sigmoid_MF))
    grad_weight_A = None
    if weight_A is not None and assignment_M is not None:
        grad_weight_M = (grad_hidden_MF.float() * activation_MF * value_MF).sum(-1)
        grad_weight_A = torch.zeros_like(weight_A).index_copy_(0, assignment_M.long(), grad_weight_M)
    return SwigluGradients(
        torch.cat((grad_gate_MF, grad_MF * activation_MF), dim=-1).to(gate_value_MG.dtype),
        (weight_M1 * activation_MF * value_MF).to(gate_value_MG.dtype),
        grad_weight_A,
    )


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
    """Compute ``swiglu_backward`` of ``down_backward``; some kernels read ``row_NK``, the row of an assignment."""
    return swiglu_backward(gate_value_MG, assignment_M, weight_A, down_backward(grad_ND, token_M, end_E, w2_EDF))


def down(hidden_MF: Tensor, end_E: Tensor, w2_EDF: Tensor) -> Tensor:
    """Multiply hidden rows by w2: ``[M, D]``."""
    return functional.grouped_mm(hidden_MF, w2_EDF.transpose(1, 2), offs=end_E)


def down_backward(grad_ND: Tensor, token_M: Tensor | None, end_E: Tensor, w2_EDF: Tensor) -> Tensor:
    """Compute the gradient of the hidden rows: ``[M, F]``."""
    return functional.grouped_mm(_gathered(grad_ND, token_M), w2_EDF, offs=end_E)


def gate_value_backward(grad_MG: Tensor, end_E: Tensor, w13_2EFD: Tensor) -> Tensor:
    """Compute the gradient of the rows: ``[M, D]``."""
    return functional.grouped_mm(grad_MG, w13_2EFD.transpose(0, 1).flatten(1, 2), offs=end_E)


def weight_gradient_w2(
    grad_ND: Tensor, token_M: Tensor | None, hidden_MF: Tensor, end_E: Tensor, accumulator_EDF: Tensor, adds: bool
) -> None:
    """Compute the sum over each expert's rows of dy h^T, and write it to ``accumulator_EDF``, or add it."""
    _write(functional.grouped_mm(_gathered(grad_ND, token_M).t(), hidden_MF, offs=end_E), accumulator_EDF, adds)


def weight_gradient_w13(
    x_ND: Tensor,
    token_M: Tensor | None,
    grad_MG: Tensor,
    end_E: Tensor,
    accumulators: tuple[Tensor, Tensor],
    adds: bool,
) -> None:
    """Do the same for w1 and w3, ``[E, F, D]`` each."""
    grad_EGD = functional.grouped_mm(grad_MG.t(), _gathered(x_ND, token_M), offs=end_E)
    for grad_EFD, accumulator_EFD in zip(grad_EGD.chunk(2, dim=1), accumulators, strict=True):
        _write(grad_EFD, accumulator_EFD, adds)


def combine(row_MD: Tensor, row_NK: Tensor) -> Tensor:
    """Sum the K rows of each token in fp32: y_n = sum_k row_{row_nk}; an index below 0 adds nothing."""
    padded_MD = torch.cat((row_MD, row_MD.new_zeros(1, row_MD.shape[1])))
    row_NK = torch.where(row_NK < 0, row_MD.shape[0], row_NK).long()
    return padded_MD[row_NK].float().sum(1).to(row_MD.dtype)


def _gathered(x_ND: Tensor, token_M: Tensor | None) -> Tensor:
    return x_ND if token_M is None else x_ND[token_M.long()]


def _by_row(weight_A: Tensor | None, assignment_M: Tensor | None) -> Tensor | float:
    return 1.0 if weight_A is None or assignment_M is None else weight_A[assignment_M.long(), None]


def _write(gradient: Tensor, accumulator: Tensor, adds: bool) -> None:
    if adds:
        accumulator += gradient.to(accumulator.dtype)
    else:
        accumulator.copy_(gradient)
