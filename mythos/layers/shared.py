"""What the passes of a step share of a weight: one copy in the dtype of products, and one sum of its gradients.

Left to autograd, every pass casts the weight, makes a gradient of its own and has it added to the others' in memory.
Here the product that makes a gradient adds it to the sum itself, which moves half of the bytes, and autograd takes the
sum to the parameter once all passes are through. Megatron-LM fuses the accumulation of gradients in the same way; but
here the sum arrives through autograd, so that an engine's hooks on the parameter run as ever.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd import Function


class GradientAccumulators(NamedTuple):
    """Where the products of one backward add the gradients of some weights.

    A product writes to the totals behind autograd's back: their version must not change, for other passes keep the
    same totals for their own backward, and custom operations do not declare it, for a compiled graph would write to
    copies. No operation of a graph reads a total, so none can read it too early.
    """

    accumulators: tuple[Tensor, ...]
    """Shaped like the weights, in their order and dtype; one for two weights in turn."""
    dependency: Tensor
    """``[0]``. Whoever adds to the totals gives this a gradient, so that they leave after the last such addition."""

    @classmethod
    def of(cls, *weights: Tensor) -> Self:
        """For the next backward. Totals go on from gradients that are there, and start at zero otherwise."""
        accumulators = tuple(torch.zeros_like(each) if each.grad is None else each.grad for each in weights)
        with torch.enable_grad():
            return cls(accumulators, _Deliver.apply(len(weights), *weights, *accumulators))

    @classmethod
    def in_turn(cls, first: Tensor, second: Tensor) -> Self:
        """One total of both weights, a row of the first, then one of the second.

        Gradients that are there move into it, lest both take memory; autograd copies the rows apart as it hands them
        over, once a backward. ``restore`` is for sums that no backward reached.
        """
        total = first.new_zeros(2 * first.shape[0], first.shape[1])
        with torch.enable_grad():
            dependency = _Deliver.apply(2, first, second, total[0::2], total[1::2])
        for weight, rows in ((first, total[0::2]), (second, total[1::2])):
            if weight.grad is not None:
                rows.copy_(weight.grad)
                weight.grad = None
                dependency.grad_fn.holds_gradients = True
        return cls((total,), dependency)

    def restore(self) -> None:
        """Give the weights the gradients that have moved here, unless a backward did."""
        delivery: Any = self.dependency.grad_fn
        if delivery.holds_gradients:
            for weight, total in zip(delivery.weights, delivery.accumulators, strict=True):
                weight.grad = total.clone(memory_format=torch.contiguous_format)


@runtime_checkable
class Sharing(Protocol):
    """A module whose weights the passes of a step can share, those of the modules within it among them."""

    def share(self, dtype: torch.dtype) -> None:
        """Take a copy in ``dtype``, unless there is one, and sums for the next backward; if it can."""

    def unshare(self) -> None:
        """Forget both; the weights may change then."""


def share(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
    """Let all passes up to the next backward share what they can of each weight; before each micro-batch.

    The parameters must not change until ``unshare``, and must be whole, which they are not under ZeRO-3.
    """
    for module in _sharing(model):
        module.share(dtype)


def unshare(model: nn.Module) -> None:
    """End it, before the optimiser's step."""
    for module in _sharing(model):
        module.unshare()


def _sharing(module: nn.Module) -> Iterator[Sharing]:
    if issubclass(type(module), Sharing):  # remembered by class; an instance would be looked through each time
        yield module  # type: ignore[misc]
        return
    for child in module.children():
        yield from _sharing(child)


def is_summable(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether it is trained in fp32 and read in ``dtype`` by products on a GPU, which can add to fp32."""
    return weight.is_cuda and weight.requires_grad and weight.dtype == torch.float32 and dtype != torch.float32


def add_product(total_OI: Tensor, grad_NO: Tensor, x_NI: Tensor) -> None:
    """total += grad^T x, behind autograd's back."""
    total_OI = total_OI.data
    if total_OI.is_cuda:
        torch.addmm(total_OI, grad_NO.t(), x_NI, out_dtype=total_OI.dtype, out=total_OI)
    else:
        total_OI += grad_NO.t().to(total_OI.dtype) @ x_NI.to(total_OI.dtype)


class _Deliver(Function):
    """Gives a ticket out; once the backward has returned it, takes the totals to the weights."""

    @staticmethod
    def forward(ctx: Any, num_weights: int, *tensors: Tensor) -> Tensor:
        ctx.weights, ctx.accumulators, ctx.holds_gradients = tensors[:num_weights], tensors[num_weights:], False
        return tensors[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        ctx.holds_gradients = False
        for weight, total in zip(ctx.weights, ctx.accumulators, strict=True):
            if weight.grad is not None and weight.grad.data_ptr() == total.data_ptr():
                weight.grad = None  # the total holds it, and arrives as a new gradient
        accumulators = (
            total.detach() for total in ctx.accumulators
        )  # other objects, or autograd would copy what others hold
        return None, *accumulators, *(None for _ in ctx.accumulators)
