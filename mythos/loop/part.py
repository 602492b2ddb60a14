"""What a loop is made of: the state that loops hand on, what each of them reads, and one equation for each part."""

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
"""F, the rest of the loop: the parts further inside, the injection and the blocks."""
Watch = Callable[[Tensor, Tensor], Any]
"""Called with the input and the output of each block; its result is part of ``LoopStats``."""


def watch_nothing(before_BSD: Tensor, after_BSD: Tensor) -> tuple[()]:
    """The ``Watch`` that looks at nothing."""
    return ()


class LoopState(NamedTuple):
    """What one loop hands to the next."""

    h_BSD: Tensor
    carries: tuple[Carry, ...] = ()
    """One for each part, in their order."""
    layer_carries: tuple[tuple[Carry, ...], ...] = ()
    """Of each block, what the parts of its attention remember."""

    def map(self, change: Callable[[Tensor], Tensor]) -> "LoopState":
        """The state with every tensor changed."""
        return tree_map(change, self)


class LoopInputs(NamedTuple):
    """What a loop reads besides the state."""

    e_BSD: Tensor
    """The output of the prelude, injected in every loop."""
    rotation: Rotation
    mask: Mask | None
    loop: int | Tensor = 0
    """Index of the loop, one for all sequences or ``[B]`` with one for each."""
    cache: Any = NO_CACHE
    """What is remembered of earlier tokens while decoding, a ``LoopCache``; for a part, its own entry of that."""
    watch: Watch = watch_nothing

    def of_part(self, index: int) -> "LoopInputs":
        """What one part reads."""
        return self._replace(cache=self.cache.parts[index])

    def table_row(self, num_rows: int) -> int | Tensor:
        """The row of a table over loops that this loop reads; loops beyond the table read its last row."""
        return min(self.loop, num_rows - 1) if isinstance(self.loop, int) else self.loop.clamp(max=num_rows - 1)


class LoopPart(nn.Module):
    """h' = F(h): one equation around F, the rest of the loop. This one adds nothing.

    A part remembers over loops in its carry, which it returns, and over tokens in its cache. Weights belong into
    submodules, whose calls gather them under ZeRO 3; ``forward`` itself is called without hooks, for it contains F.
    """

    def start(self, h_BSD: Tensor, e_BSD: Tensor) -> Carry:
        """What is carried into the first loop: tensors ``[B, ...]`` whose shapes no loop changes."""
        return ()

    def forward(self, h_BSD: Tensor, carry: Carry, inputs: LoopInputs, rest: Rest) -> tuple[Tensor, Carry]:
        """The state after the loop, and what to carry on; ``rest`` is called exactly once."""
        return rest(h_BSD), carry

    def new_cache(self, num_loops: int, capacity: int | None) -> Any:
        """What the part remembers of earlier tokens while decoding, a ``layers.cache.PartCache``; None for nothing."""
        return None

    def freeze(self, exited_BS: Tensor, old: Carry, new: Carry) -> Carry:
        """The carry in which tokens that have exited keep what they had; its tensors are ``[B, S, ...]``."""
        return frozen(exited_BS, old, new)

    def leaves(self) -> Iterator[nn.Module]:
        """What compilation compiles: the part's own modules, never ``forward``."""
        return self.children()

    def figures(self) -> dict[str, Tensor]:
        """Scalars that the weights alone give, by name; recorded as ``loop/<kind>/<name>``."""
        return {}


def frozen(exited_BS: Tensor, old: Any, new: Any) -> Any:
    """A pytree of tensors ``[B, S, ...]`` in which exited tokens keep what they had."""

    def choose(before: Tensor, after: Tensor) -> Tensor:
        return torch.where(exited_BS.view(*exited_BS.shape, *[1] * (after.dim() - 2)), before, after)

    return tree_map(choose, old, new)
