"""Normalisation and rotation of query and key heads, between projection and attention."""

from typing import Any

import torch
from torch import Tensor, nn

from mythos.layers.kernels import HAS_TRITON
from mythos.layers.norm import RMSNorm
from mythos.layers.rope import Rotation, rotate


def norm_and_rotate(x_BSHP: Tensor, norm: nn.Module, rotation: Rotation) -> Tensor:
    """Compute rotate(norm(x)) for every head; on a GPU with one kernel in the forward and one in the backward.

    Args:
        norm: RMS norm over the width of a head, or the identity.
    """
    if isinstance(norm, RMSNorm) and is_available(x_BSHP):
        cos, sin = (part.contiguous() for part in rotation)
        return _norm_and_rotate(x_BSHP.contiguous(), norm.weight, cos, sin, norm.eps)
    return rotate(norm(x_BSHP), rotation)


def is_available(x_BSHP: Tensor) -> bool:
    """Whether the kernels support these heads: on a GPU, with a width that is a power of two."""
    width = x_BSHP.shape[-1]
    return x_BSHP.is_cuda and HAS_TRITON and width >= 16 and width & (width - 1) == 0


@torch.library.custom_op("mythos::norm_and_rotate", mutates_args=(), device_types="cuda")
def _norm_and_rotate(x_BSHP: Tensor, weight_P: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    from mythos.layers.kernels import heads

    return heads.norm_and_rotate(x_BSHP, weight_P, cos, sin, eps)


@torch.library.custom_op("mythos::norm_and_rotate_backward", mutates_args=(), device_types="cuda")
def _norm_and_rotate_backward(
    grad_BSHP: Tensor, x_BSHP: Tensor, weight_P: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    from mythos.layers.kernels import heads

    return heads.norm_and_rotate_backward(grad_BSHP, x_BSHP, weight_P, cos, sin, eps)


@_norm_and_rotate.register_fake
def _(x, weight, cos, sin, eps):  # type: ignore[no-untyped-def]
    return torch.empty_like(x)


@_norm_and_rotate_backward.register_fake
def _(grad, x, weight, cos, sin, eps):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), weight.new_empty(weight.shape, dtype=torch.float32)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_BSHP: Tensor) -> tuple[Tensor | None, ...]:
    x_BSHP, weight_P, cos, sin = ctx.saved_tensors
    grad_x, grad_weight = _norm_and_rotate_backward(grad_BSHP.contiguous(), x_BSHP, weight_P, cos, sin, ctx.eps)
    return grad_x, grad_weight.to(weight_P.dtype), None, None, None


_norm_and_rotate.register_autograd(_backward, setup_context=_setup_context)
