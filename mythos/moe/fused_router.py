"""The router's product and choice as one operation, on a GPU."""

from typing import Any

import torch
from torch import Tensor

from mythos.layers.kernels import HAS_TRITON
from mythos.moe.kernels import MAX_EXPERTS, WIDTH


def is_available(x: Tensor, num_experts: int) -> bool:
    """Whether the kernel takes these tokens: on a GPU, 64 numbers wide or a multiple, for up to 512 experts."""
    return x.is_cuda and HAS_TRITON and x.shape[-1] % WIDTH == 0 and num_experts <= MAX_EXPERTS


@torch.library.custom_op("mythos::route", mutates_args=(), device_types="cuda")
def route(
    x_ND: Tensor, gate_ED: Tensor, bias: Tensor, num_active: int, is_sigmoid: bool, chooses: bool
) -> tuple[Tensor, Tensor]:
    """Logits and chosen experts; see ``kernels.routing``. Gradients are products in the dtype of ``x_ND``."""
    from mythos.moe.kernels import routing

    return routing.route(x_ND, gate_ED, bias, num_active, is_sigmoid, chooses)


@route.register_fake
def _(x, gate, bias, num_active, is_sigmoid, chooses):  # type: ignore[no-untyped-def]
    logits = x.new_empty(x.shape[0], gate.shape[0], dtype=torch.float32)
    return logits, x.new_empty(x.shape[0], num_active if chooses else 0, dtype=torch.int32)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_NE: Tensor, _: None) -> tuple[Tensor | None, ...]:
    x_ND, gate_ED = ctx.saved_tensors
    grad_NE = grad_NE.to(x_ND.dtype)
    return grad_NE @ gate_ED.to(x_ND.dtype), (grad_NE.T @ x_ND).to(gate_ED.dtype), None, None, None, None


route.register_autograd(_backward, setup_context=_setup_context)
