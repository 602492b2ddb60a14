"""Matrix products with a weight whose copy and gradient accumulator the loops of a step may share."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from mythos.layers.precision import compute_dtype
from mythos.layers.shared import GradientAccumulators, add_product, can_accumulate


class SharedWeight(NamedTuple):
    """Weight copy and gradient accumulator that the loops of a step share."""

    copy_OI: Tensor
    accumulators: GradientAccumulators


class Projection(nn.Linear):
    """y = W x."""

    shared: SharedWeight | None = None

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in_features]`` to ``[..., out_features]``."""
        if self.is_shared_in(compute_dtype(x)):
            return self._shared_product(x)
        return super().forward(x)

    def is_shared_in(self, dtype: torch.dtype) -> bool:
        """Whether there is a weight copy in ``dtype``."""
        return self.shared is not None and self.shared.copy_OI.dtype == dtype

    def _shared_product(self, x: Tensor) -> Tensor:
        assert self.shared is not None
        copy_OI, accumulators = self.shared
        return _Product.apply(x.to(copy_OI.dtype), copy_OI, accumulators.accumulators[0], accumulators.dependency)

    def share(self, dtype: torch.dtype) -> None:
        """See ``Sharing``."""
        if can_accumulate(self.weight, dtype):
            copy_OI = self.weight.detach().to(dtype) if self.shared is None else self.shared.copy_OI
            self.shared = SharedWeight(copy_OI, GradientAccumulators.of(self.weight))

    def unshare(self) -> None:
        """See ``Sharing``."""
        if self.shared is not None:
            del self.shared  # compiled code guards on whether the instance or the class holds it


class _Product(Function):
    """y = x W^T, whose backward adds dy^T x to an accumulator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, copy_OI: Tensor, accumulator_OI: Tensor, dependency: Tensor) -> Tensor:
        ctx.save_for_backward(x, copy_OI, accumulator_OI)
        return functional.linear(x, copy_OI)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, Tensor]:
        x, copy_OI, accumulator_OI = ctx.saved_tensors
        dependency = _add_product(accumulator_OI, grad.flatten(0, -2), x.flatten(0, -2))
        return grad @ copy_OI, None, None, dependency


@torch.library.custom_op("mythos::add_product", mutates_args=())
def _add_product(accumulator_OI: Tensor, grad_NO: Tensor, x_NI: Tensor) -> Tensor:
    """Add to the accumulator; returns the gradient of the dependency token."""
    add_product(accumulator_OI, grad_NO, x_NI)
    return accumulator_OI.new_empty(0)


@_add_product.register_fake
def _(accumulator, grad, x):  # type: ignore[no-untyped-def]
    return accumulator.new_empty(0)
