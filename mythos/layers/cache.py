"""What attention remembers while decoding."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mythos.config.decoding import num_cache_slots
from mythos.layers.mask import newest_mask


class KVCache(Protocol):
    """What an attention layer asks of its memory."""

    def append(self, *new_parts: Tensor) -> tuple[Tensor, ...]:
        """Remember tensors ``[B, S, ...]`` of the newest tokens; returns those of all tokens, oldest first."""


class _Nothing:
    """A sequence of any length that holds None."""

    def __getitem__(self, index: int) -> None:
        return None


class LoopCache(NamedTuple):
    """What one loop over the core remembers of earlier tokens."""

    layers: Any
    """Sequence of a ``KVCache``, or None, for each block."""
    parts: Any
    """Sequence of what each loop part remembers, or None."""


NO_CACHE = LoopCache(_Nothing(), _Nothing())


class PartCache(Protocol):
    """What a loop part remembers of earlier tokens, for all loops."""

    def at(self, loop: int, exited_BS: Tensor | None) -> Any:
        """What the part is given in a loop; tokens that have exited repeat what the loop before wrote."""

    def commit(self, num_new: int, num_loops: int) -> None:
        """Close the new tokens, which ran ``num_loops`` loops."""

    def reorder(self, rows_B: Tensor) -> None:
        """Take these rows of the batch, in this order."""

    @property
    def num_bytes(self) -> int:
        """Bytes that its tensors take."""


class LayerCache:
    """The past of one attention layer: tensors ``[B, S, ...]`` that grow along S.

    What they hold is the layer's own business: keys and values for GQA, latents and rotated keys for MLA. The newest
    tokens may be written several times, once a pass; ``commit`` makes them the past.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.length = 0
        self.parts: tuple[Tensor, ...] = ()

    def append(self, *new_parts: Tensor) -> tuple[Tensor, ...]:
        """Write after the settled tokens and return everything, oldest first."""
        end = self.length + new_parts[0].shape[1]
        assert self.capacity is None or end <= self.capacity, f"cache of {self.capacity} tokens cannot hold {end}"
        if not self.parts or end > self.parts[0].shape[1]:
            self._grow(end, new_parts)
        for part, new in zip(self.parts, new_parts, strict=True):
            part[:, self.length : end] = new
        return tuple(part[:, :end] for part in self.parts)

    def newest(self, num_tokens: int) -> tuple[Tensor, ...]:
        """What was last written and is not settled yet."""
        return tuple(part[:, self.length : self.length + num_tokens] for part in self.parts)

    def commit(self, num_tokens: int) -> None:
        """Let the newest tokens be the past of the next ones."""
        self.length += num_tokens

    def reorder(self, rows_B: Tensor) -> None:
        """Take these rows of the batch, in this order."""
        self.parts = tuple(part.index_select(0, rows_B) for part in self.parts)

    @property
    def num_bytes(self) -> int:
        """Bytes that the tensors take."""
        return sum(part.nbytes for part in self.parts)

    def _grow(self, end: int, like: tuple[Tensor, ...]) -> None:
        """Room for the capacity, or for twice what is needed where there is none."""
        room = 2 * end if self.capacity is None else self.capacity
        before = self.parts
        self.parts = tuple(new.new_empty(new.shape[0], room, *new.shape[2:]) for new in like)
        for part, old in zip(self.parts, before, strict=False):
            part[:, : self.length] = old[:, : self.length]


class LoopCacheView:
    """One core layer's memory during one pass. Tokens that have left the loop repeat what the pass before wrote."""

    def __init__(
        self, slot: LayerCache, before: LayerCache | None, exited_BS: Tensor | None, accumulators: list[Tensor] | None
    ) -> None:
        self.slot = slot
        self.before = before
        self.exited_BS = exited_BS
        self.accumulators = accumulators

    def append(self, *new_parts: Tensor) -> tuple[Tensor, ...]:
        """Write the newest tokens into the slot and return all that it holds."""
        if self.exited_BS is not None and self.before is not None:
            kept = self.before.newest(new_parts[0].shape[1])
            new_parts = tuple(
                torch.where(self.exited_BS.view(*self.exited_BS.shape, *[1] * (new.dim() - 2)), old, new)
                for old, new in zip(kept, new_parts, strict=True)
            )
        if self.accumulators is not None:
            before = self.accumulators or [torch.zeros_like(new, dtype=torch.float32) for new in new_parts]
            self.accumulators[:] = [total + new for total, new in zip(before, new_parts, strict=True)]
        return self.slot.append(*new_parts)

    def repeat(self, num_tokens: int) -> None:
        """Write for all tokens what the pass before wrote."""
        assert self.before is not None
        if self.accumulators is not None or self.slot is not self.before:
            self.append(*self.before.newest(num_tokens))


class Window(NamedTuple):
    """Where the newest tokens stand and what they may attend to."""

    positions_BS: Tensor
    mask: Tensor | None
    """``[B, 1, S, C]`` over all C tokens; None for plain causal attention."""


class DecodeCache:
    """The past of a whole model: of each layer of prelude and coda, and for the core's layers slots shared by passes.

    A policy says how passes share (``config.decoding.num_cache_slots``). Whatever it is, the newest tokens see each
    other as they are in the present pass; the policy is about tokens before them. A token that leaves the loop early
    goes into the cache as if its remaining passes had given the keys and values of its last one.
    """

    def __init__(
        self,
        num_prelude: int,
        num_core: int,
        num_coda: int,
        num_loops: int,
        capacity: int | None,
        policy: str = "all",
        parts: Sequence[PartCache | None] = (),
    ) -> None:
        num_slots = num_cache_slots(policy, num_loops)
        self.num_loops = num_loops
        self.policy = policy
        self.length = 0
        self.prelude = [LayerCache(capacity) for _ in range(num_prelude)]
        self.slots = [[LayerCache(capacity) for _ in range(num_core)] for _ in range(num_slots)]
        self.coda = [LayerCache(capacity) for _ in range(num_coda)]
        self.parts = parts
        """One for each loop part; None for one that remembers nothing."""
        self.accumulators: list[list[Tensor]] | None = [[] for _ in range(num_core)] if policy == "mean" else None
        """Of each core layer, over the passes of the newest tokens."""
        self.is_real_BC: Tensor | None = None
        """Which tokens are no padding; None while there was none."""

    def positions_and_mask(self, tokens_BS: Tensor, is_real_BS: Tensor | None = None) -> Window:
        """Positions and mask of the newest tokens; padding is seen by nobody and counts no position.

        Args:
            is_real_BS: False at padding; None where there is none.
        """
        num_rows, num_new = tokens_BS.shape
        if is_real_BS is None and self.is_real_BC is None:
            positions_S = torch.arange(self.length, self.length + num_new, device=tokens_BS.device)
            return Window(positions_S.expand_as(tokens_BS), None)
        before = self.is_real_BC
        if before is None:
            before = torch.ones(num_rows, self.length, dtype=torch.bool, device=tokens_BS.device)
        new = torch.ones_like(tokens_BS, dtype=torch.bool) if is_real_BS is None else is_real_BS.bool()
        self.is_real_BC = torch.cat((before, new), dim=1)
        return masked_window(self.is_real_BC, num_new)

    def at(self, loop: int, exited_BS: Tensor | None) -> LoopCache:
        """The memories of the core's layers and parts in a loop.

        Args:
            exited_BS: tokens that have left the loop before.
        """
        slots = self.slots[loop % len(self.slots)]
        before = self.slots[(loop - 1) % len(self.slots)] if loop else [None] * len(slots)
        accumulators = [None] * len(slots) if self.accumulators is None else self.accumulators
        views = [
            LoopCacheView(slots[layer], before[layer], exited_BS, accumulators[layer]) for layer in range(len(slots))
        ]
        return LoopCache(views, [None if part is None else part.at(loop, exited_BS) for part in self.parts])

    def commit(self, num_new: int, num_loops: int) -> None:
        """Close the newest tokens, which ran ``num_loops`` passes: write what the other passes are taken to give."""
        for loop in range(num_loops, self.num_loops):
            for view in self.at(loop, None).layers:
                view.repeat(num_new)
        if self.accumulators is not None:
            for layer_cache, accumulators in zip(self.slots[0], self.accumulators, strict=True):
                layer_cache.append(*(total / self.num_loops for total in accumulators))
                accumulators.clear()
        for layer_cache in self._layers():
            layer_cache.commit(num_new)
        for part in self._parts():
            part.commit(num_new, num_loops)
        self.length += num_new

    def reorder(self, rows_B: Tensor) -> None:
        """Take these rows of the batch, in this order, as beam search does."""
        for memory in self._memories():
            memory.reorder(rows_B)
        if self.is_real_BC is not None:
            self.is_real_BC = self.is_real_BC.index_select(0, rows_B)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(memory.num_bytes for memory in self._memories())

    def _layers(self) -> list[LayerCache]:
        return [*self.prelude, *(layer_cache for slot in self.slots for layer_cache in slot), *self.coda]

    def _memories(self) -> list[LayerCache | PartCache]:
        return [*self._layers(), *self._parts()]

    def _parts(self) -> list[PartCache]:
        return [part for part in self.parts if part is not None]


class NoCache:
    """In the place of a ``DecodeCache`` where all tokens come at once and nothing follows them."""

    prelude = None
    coda = None

    def __init__(self, num_loops: int) -> None:
        self.num_loops = num_loops

    def positions_and_mask(self, tokens_BS: Tensor, is_real_BS: Tensor | None = None) -> Window:
        """Positions and mask; see ``DecodeCache.place``."""
        if is_real_BS is None:
            positions_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)
            return Window(positions_S.expand_as(tokens_BS), None)
        return masked_window(is_real_BS.bool(), tokens_BS.shape[1])

    def at(self, loop: int, exited_BS: Tensor | None) -> LoopCache:
        """No memories."""
        assert exited_BS is None, "tokens that exit the loop need a cache"
        return NO_CACHE

    def commit(self, num_new: int, num_loops: int) -> None:
        """Nothing to close."""


def masked_window(is_real_BC: Tensor, num_new: int) -> Window:
    """The newest of C tokens among which there is padding. Padding sees itself, so that no row of scores is empty."""
    num_all = is_real_BC.shape[1]
    positions_BC = (is_real_BC.long().cumsum(1) - 1).clamp(min=0)
    causal_SC = newest_mask(num_new, num_all, is_real_BC.device)
    itself_SC = causal_SC & ~causal_SC.tril(num_all - num_new - 1)
    mask_BSC = (causal_SC & is_real_BC[:, None]) | itself_SC
    return Window(positions_BC[:, num_all - num_new :], mask_BSC[:, None])
