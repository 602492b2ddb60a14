"""Weights that the loops of a step share: one copy in the dtype of products, and one accumulator of the gradient.

With plain autograd every loop casts the weight, computes a gradient of its own and adds it to that of the other loops.
Here the product that computes a gradient adds it to the accumulator, which moves half of the bytes, and autograd
delivers the accumulator to the parameter after the backward of all loops. Megatron-LM fuses gradient accumulation in
the same way; here the accumulator is delivered through autograd, so that an engine's hooks on the parameter still run.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd import Function


class GradientAccumulators(NamedTuple):
    """Accumulators to which the products of one backward add the gradients of some weights.

    A product writes to the accumulators without autograd's knowledge. Their version must not change, because other
    loops have saved the same accumulators for their own backward; and custom operations do not declare the mutation,
    because a compiled graph would then write to copies. No operation of a graph reads an accumulator, so none can read
    it too early.
    """

    accumulators: tuple[Tensor, ...]
    """Shaped like the weights, in their order and dtype; one for two interleaved weights."""
    dependency: Tensor
    """Dependency token ``[0]``. An operation that adds to the accumulators returns a gradient of this tensor, so that
    autograd delivers them after the last addition."""

    @classmethod
    def of(cls, *weights: Tensor) -> Self:
        """Create accumulators for the next backward, from the existing gradients, or zero where there are none."""
        accumulators = tuple(torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights)
        with torch.enable_grad():
            return cls(accumulators, _Deliver.apply(len(weights), *weights, *accumulators))

    @classmethod
    def interleaved(cls, first: Tensor, second: Tensor) -> Self:
        """Create one accumulator with the interleaved rows of both weights.

        Existing gradients move into it, so that they do not take memory twice; autograd separates the rows with a copy
        when it delivers them, once in a backward. Call ``restore`` if no backward delivers the accumulator.
        """
        accumulator = first.new_zeros(2 * first.shape[0], first.shape[1])
        with torch.enable_grad():
            dependency = _Deliver.apply(2, first, second, accumulator[0::2], accumulator[1::2])
        for weight, rows in ((first, accumulator[0::2]), (second, accumulator[1::2])):
            if weight.grad is not None:
                rows.copy_(weight.grad)
                weight.grad = None
                dependency.grad_fn.holds_gradients = True
        return cls((accumulator,), dependency)

    def restore(self) -> None:
        """Return the gradients that moved into the accumulator to the weights, unless a backward has delivered them."""
        delivery: Any = self.dependency.grad_fn
        if delivery.holds_gradients:
            for weight, accumulator in zip(delivery.weights, delivery.accumulators, strict=True):
                weight.grad = accumulator.clone(memory_format=torch.contiguous_format)


@runtime_checkable
class Sharing(Protocol):
    """A module whose weights, including those of its submodules, the loops of a step can share."""

    def share(self, dtype: torch.dtype) -> None:
        """Create a weight copy in ``dtype``, if there is none, and accumulators for the next backward, if supported."""

    def unshare(self) -> None:
        """Release both, before the weights change."""


def share(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
    """Share weight copies and accumulators among all loops up to the next backward; call before each micro-batch.

    The parameters must not change until ``unshare``, and must not be partitioned (ZeRO-3).
    """
    for module in _sharing(model):
        module.share(dtype)


def unshare(model: nn.Module) -> None:
    """Release what ``share`` created; call before the optimiser's step."""
    for module in _sharing(model):
        module.unshare()


def _sharing(module: nn.Module) -> Iterator[Sharing]:
    if issubclass(type(module), Sharing):  # cached by class; a check of the instance would inspect it each time
        yield module  # type: ignore[misc]
        return
    for child in module.children():
        yield from _sharing(child)


def can_accumulate(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether a weight is trained in fp32 and read in another ``dtype`` on a GPU, whose products can add to fp32."""
    return weight.is_cuda and weight.requires_grad and weight.dtype == torch.float32 and dtype != torch.float32


def add_product(accumulator_OI: Tensor, grad_NO: Tensor, x_NI: Tensor) -> None:
    """Compute accumulator += grad^T x without autograd's knowledge."""
    accumulator_OI = accumulator_OI.data
    if accumulator_OI.is_cuda:
        torch.addmm(accumulator_OI, grad_NO.t(), x_NI, out_dtype=accumulator_OI.dtype, out=accumulator_OI)
    else:
        accumulator_OI += grad_NO.t().to(accumulator_OI.dtype) @ x_NI.to(accumulator_OI.dtype)


class _Deliver(Function):
    """Return a dependency token; its backward delivers the accumulators to the weights."""

    @staticmethod
    def forward(ctx: Any, num_weights: int, *tensors: Tensor) -> Tensor:
        ctx.weights, ctx.accumulators, ctx.holds_gradients = tensors[:num_weights], tensors[num_weights:], False
        return tensors[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        ctx.holds_gradients = False
        for weight, accumulator in zip(ctx.weights, ctx.accumulators, strict=True):
            if weight.grad is not None and weight.grad.data_ptr() == accumulator.data_ptr():
                weight.grad = None  # the accumulator contains it and is delivered as a new gradient
        # New tensor objects: autograd copies a gradient to which others hold a reference.
        gradients = (accumulator.detach() for accumulator in ctx.accumulators)
        return None, *gradients, *(None for _ in ctx.accumulators)
