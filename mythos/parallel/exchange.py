"""Differentiable exchange of tokens and rows between the ranks over which experts are sharded."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


class AsyncAllToAll:
    """Asynchronous all-to-all of equal shares of a tensor among the ranks of a group.

    Share r of ``[others * N, ...]`` is sent to the r-th of the other ranks, and share r of the result is received from
    it; gradients are exchanged in the opposite direction. One node of the autograd graph starts the exchange and the
    next waits for it, in forward and backward, so that computation in between overlaps with it. Nothing may read the
    pending tensor.
    """

    def __init__(self, x_ON: Tensor, group: dist.ProcessGroup) -> None:
        self.exchange_function = _AllToAllFunction(group)
        self.pending = _Begin.apply(x_ON, self.exchange_function)

    def result(self) -> Tensor:
        """Wait, and return what the other ranks sent."""
        return _End.apply(self.pending, self.exchange_function)


def repeat_for_others(x_N: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Repeat a rank's ``[N, ...]`` once for each other rank of the group: ``[others * N, ...]``."""
    num_others = dist.get_world_size(group) - 1
    return x_N if num_others == 1 else x_N.repeat(num_others, *[1] * (x_N.dim() - 1))


def add_partial_sums(own_N: Tensor, part_ON: Tensor) -> Tensor:
    """Add the other ranks' partial sums to a rank's own ``[N, ...]``, in fp32."""
    if part_ON.shape == own_N.shape:
        return own_N + part_ON  # a sum of two terms is rounded once
    dtype = torch.promote_types(own_N.dtype, torch.float32)
    return (own_N + part_ON.unflatten(0, (-1, own_N.shape[0])).sum(0, dtype=dtype)).to(own_N.dtype)


def exchange_rows(row_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    """Send ``sent[r]`` of the rows to rank r of the group and receive ``received[r]`` rows from it, in rank order."""
    return _ExchangeRows.apply(row_MD, sent, received, group)


class _AllToAllFunction:
    """Start and wait of one exchange at a time."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.work: dist.Work | None = None

    def begin(self, x_ON: Tensor) -> Tensor:
        """Start the exchange; the returned tensor is filled after ``wait``."""
        size, rank = dist.get_world_size(self.group), dist.get_rank(self.group)
        sizes = [0 if other == rank else x_ON.shape[0] // (size - 1) for other in range(size)]
        received_ON = torch.empty_like(x_ON, memory_format=torch.contiguous_format)
        self.work = dist.all_to_all_single(
            received_ON, x_ON.contiguous(), sizes, sizes, group=self.group, async_op=True
        )
        return received_ON

    def wait(self) -> None:
        """Make the device's next work wait for the exchange."""
        assert self.work is not None, "no exchange is pending"
        self.work.wait()
        self.work = None


class _Begin(Function):
    @staticmethod
    def forward(ctx: Any, x_ON: Tensor, exchange_function: _AllToAllFunction) -> Tensor:
        ctx.exchange_function = exchange_function
        return exchange_function.begin(x_ON)

    @staticmethod
    def backward(ctx: Any, grad_ON: Tensor) -> tuple[Tensor, None]:
        ctx.exchange_function.wait()
        return grad_ON, None


class _End(Function):
    @staticmethod
    def forward(ctx: Any, x_ON: Tensor, exchange_function: _AllToAllFunction) -> Tensor:
        ctx.exchange_function = exchange_function
        exchange_function.wait()
        return x_ON.view_as(x_ON)

    @staticmethod
    def backward(ctx: Any, grad_ON: Tensor) -> tuple[Tensor, None]:
        return ctx.exchange_function.begin(grad_ON), None


class _ExchangeRows(Function):
    @staticmethod
    def forward(ctx: Any, row_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _all_to_all(row_MD, sent, received, group)

    @staticmethod
    def backward(ctx: Any, grad_MD: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(grad_MD, ctx.received, ctx.sent, ctx.group), None, None, None


def _all_to_all(row_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    result_MD = row_MD.new_empty(sum(received), row_MD.shape[1])
    dist.all_to_all_single(result_MD, row_MD.contiguous(), received, sent, group=group)
    return result_MD
