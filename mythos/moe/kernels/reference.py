"""What the kernels compute, in plain PyTorch: their test, and the same function on every other device.

A visit is one token at one of its K experts, numbered n * K + k; a row is a visit in the order of experts. Rows of one
expert lie together and end at ``end_E``. ``token_M`` gives the token of a row and ``assignment_M`` its visit; None says
that the rows lie there already, row m being token m. ``w13`` is w1 and w3, one after the other; how it and the products
lie is each module's own affair (``cute`` has them in turn).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class SwigluGradients(NamedTuple):
    """What the backward of SwiGLU makes in one pass."""

    gate_value_MG: Tensor
    hidden_MF: Tensor
    """The weighted hidden rows, made again rather than kept."""
    weight_A: Tensor | None
    """fp32, by visit; None where rows have no weights."""


def gate_value(
    x_ND: Tensor,
    token_M: Tensor | None,
    assignment_M: Tensor | None,
    weight_A: Tensor | None,
    end_E: Tensor,
    w13_2EFD: Tensor,
    save_products: bool,
) -> tuple[Tensor, Tensor]:
    """h = w silu(g) v with g = x W_1 and v = x W_3, and g beside v, ``[M, 2F]``, or no rows of it unless ``save_products``."""
    row_MD = _gathered(x_ND, token_M)
    gate_MF = functional.grouped_mm(row_MD, w13_2EFD[0].transpose(1, 2), offs=end_E)
    value_MF = functional.grouped_mm(row_MD, w13_2EFD[1].transpose(1, 2), offs=end_E)
    hidden_MF = functional.silu(gate_MF.float()) * value_MF.float() * _by_row(weight_A, assignment_M)
    gate_value_MG = torch.cat((gate_MF, value_MF), dim=-1)
    return hidden_MF.to(x_ND.dtype), gate_value_MG if save_products else gate_value_MG[:0].clone()


def swiglu_backward(
    gate_value_MG: Tensor, assignment_M: Tensor | None, weight_A: Tensor | None, grad_hidden_MF: Tensor
) -> SwigluGradients:
    """dv = w a silu(g), dg = w a v silu'(g), dw = sum_f a silu(g) v, where a is the gradient of h = w silu(g) v."""
    gate_MF, value_MF = gate_value_MG.float().chunk(2, dim=-1)
    weight_M1 = _by_row(weight_A, assignment_M)
    chance_MF = gate_MF.sigmoid()
    activation_MF = gate_MF * chance_MF
    grad_MF = grad_hidden_MF.float() * weight_M1
    grad_gate_MF = grad_MF * value_MF * chance_MF * (1 + gate_MF * (1 - chance_MF))
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
    """``swiglu_backward`` of ``down_backward``; a kernel may take ``row_NK``, the row of a visit."""
    return swiglu_backward(gate_value_MG, assignment_M, weight_A, down_backward(grad_ND, token_M, end_E, w2_EDF))


def down(hidden_MF: Tensor, end_E: Tensor, w2_EDF: Tensor) -> Tensor:
    """Hidden rows through the last product: ``[M, D]``."""
    return functional.grouped_mm(hidden_MF, w2_EDF.transpose(1, 2), offs=end_E)


def down_backward(grad_ND: Tensor, token_M: Tensor | None, end_E: Tensor, w2_EDF: Tensor) -> Tensor:
    """Gradient of the hidden rows: ``[M, F]``."""
    return functional.grouped_mm(_gathered(grad_ND, token_M), w2_EDF, offs=end_E)


def gate_value_backward(grad_MG: Tensor, end_E: Tensor, w13_2EFD: Tensor) -> Tensor:
    """Gradient of the rows: ``[M, D]``."""
    return functional.grouped_mm(grad_MG, w13_2EFD.transpose(0, 1).flatten(1, 2), offs=end_E)


def weight_gradient_w2(
    grad_ND: Tensor, token_M: Tensor | None, hidden_MF: Tensor, end_E: Tensor, accumulator_EDF: Tensor, adds: bool
) -> None:
    """Set ``accumulator_EDF`` to the sum over each expert's rows of dy h^T, or add it."""
    _put(functional.grouped_mm(_gathered(grad_ND, token_M).t(), hidden_MF, offs=end_E), accumulator_EDF, adds)


def weight_gradient_w13(
    x_ND: Tensor,
    token_M: Tensor | None,
    grad_MG: Tensor,
    end_E: Tensor,
    accumulators: tuple[Tensor, Tensor],
    adds: bool,
) -> None:
    """The same of w1 and w3, ``[E, F, D]`` each."""
    grad_EGD = functional.grouped_mm(grad_MG.t(), _gathered(x_ND, token_M), offs=end_E)
    for grad_EFD, accumulator_EFD in zip(grad_EGD.chunk(2, dim=1), accumulators, strict=True):
        _put(grad_EFD, accumulator_EFD, adds)


def combine(row_MD: Tensor, row_NK: Tensor) -> Tensor:
    """Sum the K rows of each token in fp32: y_n = sum_k row_{place_nk}; a place below 0 adds nothing."""
    padded_MD = torch.cat((row_MD, row_MD.new_zeros(1, row_MD.shape[1])))
    row_NK = torch.where(row_NK < 0, row_MD.shape[0], row_NK).long()
    return padded_MD[row_NK].float().sum(1).to(row_MD.dtype)


def _gathered(x_ND: Tensor, token_M: Tensor | None) -> Tensor:
    return x_ND if token_M is None else x_ND[token_M.long()]


def _by_row(weight_A: Tensor | None, assignment_M: Tensor | None) -> Tensor | float:
    return 1.0 if weight_A is None or assignment_M is None else weight_A[assignment_M.long(), None]


def _put(gradient: Tensor, total: Tensor, adds: bool) -> None:
    if adds:
        total += gradient.to(total.dtype)
    else:
        total.copy_(gradient)
