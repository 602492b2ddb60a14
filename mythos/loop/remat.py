"""Recompute the activations of a loop or a block in the backward, by non-reentrant checkpointing.

(Reentrant checkpointing fails under ZeRO-2 and gives silently wrong gradients under ZeRO-3.)
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakTensorKeyDictionary

from mythos.config.parallel import ParallelBase

X = TypeVar("X")
S = TypeVar("S")
M = TypeVar("M")
Run = Callable[[X, M | None], tuple[X, S, M]]
"""Maps tensors and optional expert indices to (tensors, statistics, expert indices); given indices replace routing."""


class Remat(NamedTuple):
    """Policy of recomputation in the backward: nothing, each loop, or each block."""

    policy: Literal["none", "loop", "block"] = "none"
    offload_states: bool = False
    """With ``loop``, keep the states in host memory until the backward."""

    def loop(self, run: Run[X, M, S], state: X) -> tuple[X, S, M]:
        """Run one loop."""
        if self.policy == "loop" and torch.is_grad_enabled():
            return recomputed(run, state, self.offload_states)
        return run(state, None)

    def block(
        self, run: Run[Tensor, Tensor | None, S], x_BSD: Tensor, expert_indices_NK: Tensor | None
    ) -> tuple[Tensor, S, Tensor | None]:
        """Run one block."""
        if self.policy == "block" and torch.is_grad_enabled():
            return recomputed(run, x_BSD)
        return run(x_BSD, expert_indices_NK)


NO_REMAT = Remat()
_HOST_COPIES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Copies in host memory of tensors that are alive: a carry may hold states of earlier loops, which were copied then."""


def remat_of(parallel: ParallelBase) -> Remat:
    """Return the policy of a configuration, in which ``auto`` has been resolved."""
    assert parallel.remat != "auto", "resolve_remat first"
    return Remat(parallel.remat, parallel.offload_states)


def recomputed(run: Run[X, M, S], x: X, offload: bool = False) -> tuple[X, S, M]:
    """Call ``run(x, None)`` and store only ``x`` and the expert indices; the backward calls it again.

    Args:
        run: given expert indices, it uses them, because a recomputed top-k could differ in low precision.
        x: a pytree of tensors.
        offload: keep ``x`` in host memory until the backward.
    """
    waiting = tree_map(_Waiting, x)
    expert_indices: list[M] = []

    def again() -> tuple[X, S]:
        y, stats, indices = run(tree_map(_Waiting.load, waiting), expert_indices[0] if expert_indices else None)
        if not expert_indices:
            expert_indices.append(indices)
        return y, stats

    y, stats = checkpoint(again, use_reentrant=False, preserve_rng_state=False)
    if offload:
        tree_map(_Waiting.move_to_host, waiting)
    return y, stats, expert_indices[0]


class _Waiting:
    """A tensor stored for the backward, on its device or in host memory."""

    def __init__(self, x: Tensor) -> None:
        self.value = x
        self.device = x.device
        self.requires_grad = x.requires_grad

    def move_to_host(self) -> None:
        """Copy the values to the host, once for all loops; gradients flow through the graph of the first forward."""
        host = _HOST_COPIES.get(self.value)
        if host is None:
            host = torch.empty_like(self.value, device="cpu", pin_memory=self.value.is_cuda, requires_grad=False)
            _HOST_COPIES[self.value] = host.copy_(self.value.detach(), non_blocking=True)
        self.value = host

    def load(self) -> Tensor:
        if self.value.requires_grad == self.requires_grad and self.value.device == self.device:
            return self.value
        back = self.value.to(self.device, non_blocking=True, copy=True)
        return back.requires_grad_(self.requires_grad)  # so that the same operations save the same tensors
