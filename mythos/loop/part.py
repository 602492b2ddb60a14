"""The elements of a loop: its state, its inputs, and the parts, each of which is one equation."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mythos.layers.attention_part import Carry
from mythos.layers.cache import NO_CACHE
from mythos.layers.mask import Mask
from mythos.layers.rope import Rotation

Rest = Callable[[Tensor], Tensor]
"""F, the rest of the loop: the inner parts, the injection and the blocks."""
Watch = Callable[[Tensor, Tensor], Any]
"""Function of the input and the output of a block; ``LoopStats`` contains its results."""

WatchPart = Callable[["LoopPart", Tensor, Tensor, Carry, "LoopInputs"], Any]
"""Function of a part, the state before the loop, F of it, the part's carry before the loop, and its inputs;
``LoopStats`` contains its results."""


def watch_nothing(before_BSD: Tensor, after_BSD: Tensor) -> tuple[()]:
    """Return nothing, the default ``Watch``."""
    return ()


def watch_no_part(part: "LoopPart", h_BSD: Tensor, y_BSD: Tensor, carry: Carry, inputs: "LoopInputs") -> tuple[()]:
    """Return nothing, the default ``WatchPart``."""
    return ()


class LoopState(NamedTuple):
    """State that a loop reads and returns."""

    h_BSD: Tensor
    carries: tuple[Carry, ...] = ()
    """Carry of each part, in their order."""
    layer_carries: tuple[tuple[Carry, ...], ...] = ()
    """Carries of the parts of each block's attention."""

    def map(self, change: Callable[[Tensor], Tensor]) -> "LoopState":
        """Return the state with a function applied to every tensor."""
        return tree_map(change, self)


class LoopInputs(NamedTuple):
    """Inputs of a loop besides the state."""

    e_BSD: Tensor
    """Output of the prelude, injected in every loop."""
    rotation: Rotation
    mask: Mask | None
    loop: int | Tensor = 0
    """Index of the loop, a number for all sequences or ``[B]`` with one for each."""
    num_loops: int | Tensor = 1
    """T, the number of loops that the sequences run, likewise; for tokens that exit early, the number without exits."""
    cache: Any = NO_CACHE
    """Cache of earlier tokens while decoding, a ``LoopCache``; for a part, its own entry of it."""
    watch: Watch = watch_nothing
    watch_part: WatchPart = watch_no_part

    def of_part(self, index: int) -> "LoopInputs":
        """Return the inputs of one part."""
        return self._replace(cache=self.cache.parts[index])

    def table_row(self, num_rows: int) -> int | Tensor:
        """Return the row of a table over loops that this loop reads; loops beyond the table read its last row."""
        return min(self.loop, num_rows - 1) if isinstance(self.loop, int) else self.loop.clamp(max=num_rows - 1)


class LoopPart(nn.Module):
    """One equation around F, the rest of the loop; the base class is h' = F(h).

    A part has memory over loops in its carry, which it returns, and over tokens in its cache. Weights belong into
    submodules, whose calls gather them under ZeRO 3; ``forward`` itself is called without hooks, because it contains F.
    """

    def start(self, h_BSD: Tensor, e_BSD: Tensor) -> Carry:
        """Return the carry of the first loop: tensors ``[B, ...]`` whose shapes no loop changes."""
        return ()

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """Return the state after the loop and the next carry; call ``rest`` exactly once."""
        return rest(h_BSD), carry

    def for_blocks(self, carry: Carry) -> Carry:
        """Return what the part inside the attention of the blocks reads in ``LayerInputs.loop_carry``."""
        return carry

    def new_cache(self, num_loops: int, capacity: int | None) -> Any:
        """Return the cache of earlier tokens while decoding, a ``layers.cache.PartCache``; None without one."""
        return None

    def freeze(self, exited_BS: Tensor, old: Carry, new: Carry) -> Carry:
        """Return the new carry, in which exited tokens keep their old values; its tensors are ``[B, S, ...]``."""
        return frozen(exited_BS, old, new)

    def leaves(self) -> Iterator[nn.Module]:
        """Yield the modules to compile: the part's own ones, never ``forward``."""
        return self.children()

    def figures(self) -> dict[str, Tensor]:
        """Return scalars computed from the weights, by name; recorded as ``<family>/<name>``."""
        return {}

    def gates(self, h_BSD: Tensor, y_BSD: Tensor, carry: Carry, inputs: LoopInputs) -> dict[str, Tensor]:
        """Return the gates of a loop, ``[B, S, ...]`` of absolute values up to 1, by name; y is F of the state.

        It computes them again, and is called in watched forwards only, without gradients.
        """
        return {}


class InBlocks(LoopPart):
    """A part that changes only the attention or the routers of the core's blocks, where ``PartSpec`` builds it."""

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__()


def frozen(exited_BS: Tensor, old: Any, new: Any) -> Any:
    """Return the new pytree of tensors ``[B, S, ...]``, in which exited tokens keep their old values."""

    def choose(before: Tensor, after: Tensor) -> Tensor:
        return torch.where(exited_BS.view(*exited_BS.shape, *[1] * (after.dim() - 2)), before, after)

    return tree_map(choose, old, new)
