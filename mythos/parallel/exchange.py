"""Tokens and rows on their way between the ranks that share one set of experts, with gradients.

What a rank's neighbours need travels while it computes something else: an exchange begins in one step of the autograd
graph and is waited for in the next, forward and backward. Nothing may read what is on its way in between.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


class Spread:
    """Gives every rank of a group the tokens of all: ``[N, ...]`` to ``[ranks * N, ...]``, in the order of ranks.

    The gradient of a rank's tokens is the sum, in fp32, of what the ranks made of them.
    """

    def __init__(self, x_N: Tensor, group: dist.ProcessGroup) -> None:
        self.transit = _Transit(group)
        self.pending = _BeginSpread.apply(x_N, self.transit)

    def result(self) -> Tensor:
        """The tokens of all ranks; waits for them."""
        return _EndSpread.apply(self.pending, self.transit)


class Collect:
    """Adds up, in fp32, what each rank of a group has made of every rank's tokens: the way back from ``Spread``."""

    def __init__(self, y_RN: Tensor, group: dist.ProcessGroup) -> None:
        self.transit = _Transit(group)
        self.pending = _BeginCollect.apply(y_RN, self.transit)

    def result(self) -> Tensor:
        """This rank's tokens, ``[N, ...]``; waits for them."""
        return _EndCollect.apply(self.pending, self.transit)


def exchange_rows(row_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    """Send ``sent[r]`` of the rows to rank r of the group and take ``received[r]`` from it, in the order of ranks."""
    return _ExchangeRows.apply(row_MD, sent, received, group)


class _Transit:
    """One tensor on its way."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.size = dist.get_world_size(group)
        self.work: dist.Work | None = None

    def spread(self, x_N: Tensor) -> Tensor:
        """Begin to fill ``[ranks * N, ...]`` with the tokens of all ranks."""
        x_RN = x_N.new_empty(self.size * x_N.shape[0], *x_N.shape[1:])
        self.work = dist.all_gather_into_tensor(x_RN, x_N.contiguous(), group=self.group, async_op=True)
        return x_RN

    def collect(self, y_RN: Tensor) -> Tensor:
        """Begin to fill ``[ranks * N, ...]`` with each rank's part in this rank's tokens."""
        part_RN = torch.empty_like(y_RN)
        self.work = dist.all_to_all_single(part_RN, y_RN.contiguous(), group=self.group, async_op=True)
        return part_RN

    def wait(self) -> None:
        """Let the device's next work come after the arrival."""
        assert self.work is not None, "nothing is on its way"
        self.work.wait()
        self.work = None

    def total(self, part_RN: Tensor) -> Tensor:
        """The parts' sum."""
        dtype = torch.promote_types(part_RN.dtype, torch.float32)
        return part_RN.unflatten(0, (self.size, -1)).sum(0, dtype=dtype).to(part_RN.dtype)


class _BeginSpread(Function):
    @staticmethod
    def forward(ctx: Any, x_N: Tensor, transit: _Transit) -> Tensor:
        ctx.transit = transit
        return transit.spread(x_N)

    @staticmethod
    def backward(ctx: Any, part_RN: Tensor) -> tuple[Tensor, None]:
        ctx.transit.wait()
        return ctx.transit.total(part_RN), None


class _EndSpread(Function):
    @staticmethod
    def forward(ctx: Any, x_RN: Tensor, transit: _Transit) -> Tensor:
        ctx.transit = transit
        transit.wait()
        return x_RN.view_as(x_RN)

    @staticmethod
    def backward(ctx: Any, grad_RN: Tensor) -> tuple[Tensor, None]:
        return ctx.transit.collect(grad_RN), None


class _BeginCollect(Function):
    @staticmethod
    def forward(ctx: Any, y_RN: Tensor, transit: _Transit) -> Tensor:
        ctx.transit = transit
        return transit.collect(y_RN)

    @staticmethod
    def backward(ctx: Any, grad_RN: Tensor) -> tuple[Tensor, None]:
        ctx.transit.wait()
        return grad_RN, None


class _EndCollect(Function):
    @staticmethod
    def forward(ctx: Any, part_RN: Tensor, transit: _Transit) -> Tensor:
        ctx.transit = transit
        transit.wait()
        return transit.total(part_RN)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:
        return ctx.transit.spread(grad_N), None


class _ExchangeRows(Function):
    @staticmethod
    def forward(ctx: Any, row_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _all_to_all(row_MD, sent, received, group)

    @staticmethod
    def backward(ctx: Any, grad_MD: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(grad_MD, ctx.received, ctx.sent, ctx.group), None, None, None


def _all_to_all(row_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    arrived_MD = row_MD.new_empty(sum(received), row_MD.shape[1])
    dist.all_to_all_single(arrived_MD, row_MD.contiguous(), received, sent, group=group)
    return arrived_MD
