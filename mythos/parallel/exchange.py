"""Tokens and rows on their way between the ranks that share one set of experts, with gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


class AsyncAllToAll:
    """Equal shares of a tensor on their way to the other ranks of a group, and theirs on their way here.

    Share r of ``[others * N, ...]`` goes to the r-th of the other ranks, and the result's share r is what came from
    it; the gradient travels the same way back. An exchange begins in one step of the autograd graph and is waited for
    in the next, forward and backward, so that what a rank computes in between hides it. Nothing may read what is on
    its way.
    """

    def __init__(self, x_ON: Tensor, group: dist.ProcessGroup) -> None:
        self.exchange_function = _AllToAllFunction(group)
        self.pending = _Begin.apply(x_ON, self.exchange_function)

    def result(self) -> Tensor:
        """What the others sent; waits for it."""
        return _End.apply(self.pending, self.exchange_function)


def exchange(x_N: Tensor, group: dist.ProcessGroup) -> Tensor:
    """A rank's ``[N, ...]``, once for each other rank of the group: ``[others * N, ...]``."""
    num_others = dist.get_world_size(group) - 1
    return x_N if num_others == 1 else x_N.repeat(num_others, *[1] * (x_N.dim() - 1))


def with_parts(own_N: Tensor, part_ON: Tensor) -> Tensor:
    """A rank's ``[N, ...]`` and what the others have made of it, added up in fp32."""
    if part_ON.shape == own_N.shape:
        return own_N + part_ON  # of two numbers, rounded once
    dtype = torch.promote_types(own_N.dtype, torch.float32)
    return (own_N + part_ON.unflatten(0, (-1, own_N.shape[0])).sum(0, dtype=dtype)).to(own_N.dtype)


def exchange_rows(row_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    """Send ``sent[r]`` of the rows to rank r of the group and take ``received[r]`` from it, in the order of ranks."""
    return _ExchangeRows.apply(row_MD, sent, received, group)


class _AllToAllFunction:
    """One tensor on its way."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.work: dist.Work | None = None

    def begin(self, x_ON: Tensor) -> Tensor:
        """Start the exchange; the result is not filled before ``wait``."""
        size, rank = dist.get_world_size(self.group), dist.get_rank(self.group)
        sizes = [0 if other == rank else x_ON.shape[0] // (size - 1) for other in range(size)]
        arriving_ON = torch.empty_like(x_ON, memory_format=torch.contiguous_format)
        self.work = dist.all_to_all_single(
            arriving_ON, x_ON.contiguous(), sizes, sizes, group=self.group, async_op=True
        )
        return arriving_ON

    def wait(self) -> None:
        """Let the device's next work come after the arrival."""
        assert self.work is not None, "nothing is on its way"
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
