"""Router logits and selection of experts as one operation, on a GPU."""

from typing import Any

import torch
from torch import Tensor

from mythos.layers.kernels import HAS_TRITON
from mythos.moe.kernels import MAX_EXPERTS, WIDTH


def is_available(x: Tensor, gate: Tensor) -> bool:
    """Whether the kernel supports these tokens: on a GPU, width a multiple of 64, one matrix of at most 512 experts."""
    return x.is_cuda and HAS_TRITON and x.shape[-1] % WIDTH == 0 and gate.dim() == 2 and gate.shape[0] <= MAX_EXPERTS


@torch.library.custom_op("mythos::route", mutates_args=(), device_types="cuda")
def route(
    x_ND: Tensor, gate_ED: Tensor, bias: Tensor, num_active: int, is_sigmoid: bool, selects: bool
) -> tuple[Tensor, Tensor]:
    """Return logits and expert indices; see ``kernels.routing``. Gradients are products in the dtype of ``x_ND``."""
    from mythos.moe.kernels import routing

    return routing.route(x_ND, gate_ED, bias, num_active, is_sigmoid, selects)


@route.register_fake
def _(x, gate, bias, num_active, is_sigmoid, selects):  # type: ignore[no-untyped-def]
    logits = x.new_empty(x.shape[0], gate.shape[0], dtype=torch.float32)
    return logits, x.new_empty(x.shape[0], num_active if selects else 0, dtype=torch.int32)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_NE: Tensor, _: None) -> tuple[Tensor | None, ...]:
    x_ND, gate_ED = ctx.saved_tensors
    grad_NE = grad_NE.to(x_ND.dtype)
    return grad_NE @ gate_ED.to(x_ND.dtype), (grad_NE.T @ x_ND).to(gate_ED.dtype), None, None, None, None


route.register_autograd(_backward, setup_context=_setup_context)
