"""SwiGLU as one operation on weights that the passes of a step share.

Its first products make the hidden rows in their epilogue and its backward's first product those rows again, with the
gradients of gate and value (``kernels.gated``): a pass over memory less each way. Kept are the input and both products.
"""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from mythos.layers.kernels import takes_gated
from mythos.layers.shared import GradientAccumulators, add_product


class SwiGLUCopies(NamedTuple):
    """The weights in the dtype of products."""

    w13_GD: Tensor
    """G = 2F: the rows of w1 and w3 in turn."""
    w2_DF: Tensor

    @classmethod
    def of(cls, w1_FD: Tensor, w2_DF: Tensor, w3_FD: Tensor, dtype: torch.dtype) -> Self:
        """New ones."""
        w13_GD = torch.stack((w1_FD.detach().to(dtype), w3_FD.detach().to(dtype)), dim=1).flatten(0, 1)
        return cls(w13_GD, w2_DF.detach().to(dtype))


class SharedSwiGLU(NamedTuple):
    """What the passes of a step share."""

    copies: SwiGLUCopies
    accumulators13: GradientAccumulators
    accumulators2: GradientAccumulators


def is_available(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether the operation is faster than its parts for weights like this one."""
    return takes_gated(weight, dtype, *weight.shape)


def apply(x: Tensor, shared: SharedSwiGLU) -> Tensor:
    """y = W_2 (silu(W_1 x) * W_3 x), ``[..., D]``."""
    (w13_GD, w2_DF), (totals13, dependency13), (totals2, dependency2) = shared
    x_ND = x.to(w13_GD.dtype).flatten(0, -2).contiguous()
    keep = torch.is_grad_enabled()
    y_ND, _ = _swiglu(x_ND, w13_GD, w2_DF, totals13[0], totals2[0], dependency13, dependency2, keep)
    return y_ND.view_as(x)


@torch.library.custom_op("mythos::swiglu", mutates_args=())
def _swiglu(
    x_ND: Tensor,
    w13_GD: Tensor,
    w2_DF: Tensor,
    total13_GD: Tensor,
    total2_DF: Tensor,
    dependency13: Tensor,
    dependency2: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """The output, and both products in turn if ``keep``. Gradients go to the totals, as ``shared`` says."""
    if takes_gated(x_ND, x_ND.dtype, *w2_DF.shape):
        from mythos.layers.kernels import gated

        hidden_NF, kept_NG = gated.gated(x_ND, w13_GD, keep)
    else:
        kept_NG = x_ND @ w13_GD.t()
        hidden_NF = (functional.silu(kept_NG[:, 0::2].float()) * kept_NG[:, 1::2].float()).to(x_ND.dtype)
    kept_NG = kept_NG if keep and kept_NG is not None else x_ND.new_empty(0, w13_GD.shape[0])
    return hidden_NF @ w2_DF.t(), kept_NG


@torch.library.custom_op("mythos::swiglu_backward", mutates_args=())
def _swiglu_backward(
    grad_ND: Tensor,
    kept_NG: Tensor,
    x_ND: Tensor,
    w13_GD: Tensor,
    w2_DF: Tensor,
    total13_GD: Tensor,
    total2_DF: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the input, and of the tickets."""
    if takes_gated(grad_ND, grad_ND.dtype, *w2_DF.shape):
        from mythos.layers.kernels import gated

        grad_NG, hidden_NF, _ = gated.gated_backward(grad_ND, w2_DF, kept_NG)
    else:
        grad_NG, hidden_NF = _activation_backward(kept_NG, grad_ND @ w2_DF)
    add_product(total2_DF, grad_ND, hidden_NF)
    add_product(total13_GD, grad_NG, x_ND)
    return grad_NG @ w13_GD, total13_GD.new_empty(0), total2_DF.new_empty(0)


def _activation_backward(kept_NG: Tensor, grad_hidden_NF: Tensor) -> tuple[Tensor, Tensor]:
    """dv = a silu(g), dg = a v silu'(g), where a is the gradient of h = silu(g) v; and h."""
    gate_NF, value_NF, grad_NF = kept_NG[:, 0::2].float(), kept_NG[:, 1::2].float(), grad_hidden_NF.float()
    activation_NF = functional.silu(gate_NF)
    grad_gate_NF = torch.ops.aten.silu_backward(grad_NF * value_NF, gate_NF)
    grad_NG = torch.stack((grad_gate_NF, grad_NF * activation_NF), dim=-1).flatten(1)
    return grad_NG.to(kept_NG.dtype), (activation_NF * value_NF).to(kept_NG.dtype)


@_swiglu.register_fake
def _(x, w13, w2, total13, total2, dependency13, dependency2, keep):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), x.new_empty(x.shape[0] if keep else 0, w13.shape[0])


@_swiglu_backward.register_fake
def _(grad, kept, x, w13, w2, total13, total2):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), total13.new_empty(0), total2.new_empty(0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w13, w2, total13, total2, *_ = inputs
    ctx.save_for_backward(output[1], x, w13, w2, total13, total2)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # else autograd fills a gradient of the products with zeros


def _gradient(ctx: Any, grad_ND: Tensor, _: None) -> tuple[Tensor | None, ...]:
    grad_x_ND, dependency13, dependency2 = _swiglu_backward(grad_ND.contiguous(), *ctx.saved_tensors)
    return grad_x_ND, None, None, None, None, dependency13, dependency2, None


_swiglu.register_autograd(_gradient, setup_context=_keep)
