"""SwiGLU as one operation on weights that the loops of a step share.

The first products compute the hidden rows in their epilogue; the first product of the backward recomputes them, with
the gradients of gate and value (``kernels.gated``). Neither needs a kernel of its own. The input and both products are
saved.
"""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from mythos.layers.kernels import supports_gated
from mythos.layers.shared import GradientAccumulators, add_product


class SwiGLUWeightCopies(NamedTuple):
    """Weight copies in the dtype of products."""

    w13_GD: Tensor
    """G = 2F: the interleaved rows of w1 and w3."""
    w2_DF: Tensor

    @classmethod
    def of(cls, w1_FD: Tensor, w2_DF: Tensor, w3_FD: Tensor, dtype: torch.dtype) -> Self:
        """Copy the weights."""
        w13_GD = torch.stack((w1_FD.detach().to(dtype), w3_FD.detach().to(dtype)), dim=1).flatten(0, 1)
        return cls(w13_GD, w2_DF.detach().to(dtype))


class SharedSwiGLU(NamedTuple):
    """Weight copies and gradient accumulators that the loops of a step share."""

    weight_copies: SwiGLUWeightCopies
    accumulators13: GradientAccumulators
    accumulators2: GradientAccumulators


def is_available(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether the operation is faster than separate products for a weight like this one."""
    return supports_gated(weight, dtype, *weight.shape)


def apply(x: Tensor, shared: SharedSwiGLU) -> Tensor:
    """Compute y = W_2 (silu(W_1 x) * W_3 x), ``[..., D]``."""
    (w13_GD, w2_DF), (accumulators13, dependency13), (accumulators2, dependency2) = shared
    x_ND = x.to(w13_GD.dtype).flatten(0, -2).contiguous()
    save_products = torch.is_grad_enabled()
    y_ND, _ = _swiglu(
        x_ND, w13_GD, w2_DF, accumulators13[0], accumulators2[0], dependency13, dependency2, save_products
    )
    return y_ND.view_as(x)


@torch.library.custom_op("mythos::swiglu", mutates_args=())
def _swiglu(
    x_ND: Tensor,
    w13_GD: Tensor,
    w2_DF: Tensor,
    accumulator13_GD: Tensor,
    accumulator2_DF: Tensor,
    dependency13: Tensor,
    dependency2: Tensor,
    save_products: bool,
) -> tuple[Tensor, Tensor]:
    """Return the output, and both products interleaved if ``save_products``; see ``shared`` for the accumulators."""
    if supports_gated(x_ND, x_ND.dtype, *w2_DF.shape):
        from mythos.layers.kernels import gated

        hidden_NF, gate_value_NG = gated.gated(x_ND, w13_GD, save_products)
    else:
        gate_value_NG = x_ND @ w13_GD.t()
        hidden_NF = (functional.silu(gate_value_NG[:, 0::2].float()) * gate_value_NG[:, 1::2].float()).to(x_ND.dtype)
    gate_value_NG = gate_value_NG if save_products and gate_value_NG is not None else x_ND.new_empty(0, w13_GD.shape[0])
    return hidden_NF @ w2_DF.t(), gate_value_NG


@torch.library.custom_op("mythos::swiglu_backward", mutates_args=())
def _swiglu_backward(
    grad_ND: Tensor,
    gate_value_NG: Tensor,
    x_ND: Tensor,
    w13_GD: Tensor,
    w2_DF: Tensor,
    accumulator13_GD: Tensor,
    accumulator2_DF: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of the input and of the dependency tokens."""
    if supports_gated(grad_ND, grad_ND.dtype, *w2_DF.shape):
        from mythos.layers.kernels import gated

        grad_NG, hidden_NF, _ = gated.gated_backward(grad_ND, w2_DF, gate_value_NG)
    else:
        grad_NG, hidden_NF = _activation_backward(gate_value_NG, grad_ND @ w2_DF)
    add_product(accumulator2_DF, grad_ND, hidden_NF)
    add_product(accumulator13_GD, grad_NG, x_ND)
    return grad_NG @ w13_GD, accumulator13_GD.new_empty(0), accumulator2_DF.new_empty(0)


def _activation_backward(gate_value_NG: Tensor, grad_hidden_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Return dg = a v silu'(g) and dv = a silu(g) interleaved, where a is the gradient of h = silu(g) v, and h."""
    gate_NF, value_NF, grad_NF = gate_value_NG[:, 0::2].float(), gate_value_NG[:, 1::2].float(), grad_hidden_NF.float()
    activation_NF = functional.silu(gate_NF)
    grad_gate_NF = torch.ops.aten.silu_backward(grad_NF * value_NF, gate_NF)
    grad_NG = torch.stack((grad_gate_NF, grad_NF * activation_NF), dim=-1).flatten(1)
    return grad_NG.to(gate_value_NG.dtype), (activation_NF * value_NF).to(gate_value_NG.dtype)


@_swiglu.register_fake
def _(x, w13, w2, accumulator13, accumulator2, dependency13, dependency2, save_products):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), x.new_empty(x.shape[0] if save_products else 0, w13.shape[0])


@_swiglu_backward.register_fake
def _(grad, gate_value, x, w13, w2, accumulator13, accumulator2):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), accumulator13.new_empty(0), accumulator2.new_empty(0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w13, w2, accumulator13, accumulator2, *_ = inputs
    ctx.save_for_backward(output[1], x, w13, w2, accumulator13, accumulator2)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # else autograd fills a gradient of the products with zeros


def _backward(ctx: Any, grad_ND: Tensor, _: None) -> tuple[Tensor | None, ...]:
    grad_x_ND, dependency13, dependency2 = _swiglu_backward(grad_ND.contiguous(), *ctx.saved_tensors)
    return grad_x_ND, None, None, None, None, dependency13, dependency2, None


_swiglu.register_autograd(_backward, setup_context=_setup_context)
