"""Trading computation for memory: what a pass needs for its backward is computed again, non-reentrantly.

(Reentrant checkpointing fails under ZeRO-2 and gives silently wrong gradients under ZeRO-3.)
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

S = TypeVar("S")
M = TypeVar("M")


def recomputed(
    run: Callable[[Tensor, M | None], tuple[Tensor, S, M]], x: Tensor, offload: bool = False
) -> tuple[Tensor, S, M]:
    """Call ``run(x, None)`` and keep only ``x`` and the choices that it made; the backward calls it again.

    Args:
        run: maps a tensor and earlier choices to (tensor, statistics, choices). Given choices, it repeats them: a
            recomputed top-k could fall differently in low precision.
        offload: keep ``x`` in host memory until the backward.
    """
    kept = _Kept(x)
    expert_indices: list[M] = []

    def again() -> tuple[Tensor, S]:
        y, stats, chosen = run(kept.load(), expert_indices[0] if expert_indices else None)
        if not expert_indices:
            expert_indices.append(chosen)
        return y, stats

    y, stats = checkpoint(again, use_reentrant=False, preserve_rng_state=False)
    if offload:
        kept.move_to_host()
    return y, stats, expert_indices[0]


class _Kept:
    """A tensor that waits for the backward, on its device or in host memory."""

    def __init__(self, x: Tensor) -> None:
        self.value = x
        self.device = x.device
        self.requires_grad = x.requires_grad

    def move_to_host(self) -> None:
        """Values are all that the recomputation needs; gradients find their way through the first forward's graph."""
        host = torch.empty_like(self.value, device="cpu", pin_memory=self.value.is_cuda, requires_grad=False)
        self.value = host.copy_(self.value.detach(), non_blocking=True)

    def load(self) -> Tensor:
        if self.value.requires_grad == self.requires_grad and self.value.device == self.device:
            return self.value
        back = self.value.to(self.device, non_blocking=True, copy=True)
        return back.requires_grad_(self.requires_grad)  # so that the same operations save the same tensors
