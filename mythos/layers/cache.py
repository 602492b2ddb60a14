"""Key-value caches of decoding."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mythos.config.decoding import num_cache_slots
from mythos.layers.mask import causal_mask


class KVCache(Protocol):
    """Interface that an attention layer uses to read and write its cache."""

    def append(self, *new_parts: Tensor) -> tuple[Tensor, ...]:
        """Append tensors ``[B, S, ...]`` of the new tokens; returns those of all tokens, oldest first."""

    def earlier(self) -> tuple[Tensor, ...]:
        """Return the tensors of the earlier tokens in the loop before; zeros in the first loop, () without any."""


class _Nothing:
    """A sequence of any length whose elements are None."""

    def __getitem__(self, index: int) -> None:
        return None


class LoopCache(NamedTuple):
    """Caches of earlier tokens for one loop of the core."""

    layers: Any
    """Sequence with a ``KVCache`` or None for each block."""
    parts: Any
    """Sequence with the cache of each loop part, or None."""


NO_CACHE = LoopCache(_Nothing(), _Nothing())


class PartCache(Protocol):
    """Cache of a loop part for earlier tokens, over all loops."""

    def at(self, loop: int, exited_BS: Tensor | None) -> Any:
        """Return the part's cache in one loop; exited tokens keep what the previous loop wrote."""

    def commit(self, num_new: int, num_loops: int) -> None:
        """Commit the new tokens, which ran ``num_loops`` loops."""

    def reorder(self, rows_B: Tensor) -> None:
        """Take these rows of the batch, in this order."""

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors."""


class LayerCache:
    """Cache of one attention layer: tensors ``[B, S, ...]`` that grow along S.

    The layer decides what it caches: keys and values in GQA, latents and rotated keys in MLA. The new tokens may be
    written several times, once for each loop; ``commit`` makes them part of the past.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.length = 0
        self.parts: tuple[Tensor, ...] = ()

    def append(self, *new_parts: Tensor) -> tuple[Tensor, ...]:
        """Write after the committed tokens and return the tensors of all tokens, oldest first."""
        end = self.length + new_parts[0].shape[1]
        assert self.capacity is None or end <= self.capacity, f"cache of {self.capacity} tokens cannot hold {end}"
        if not self.parts or end > self.parts[0].shape[1]:
            self._grow(end, new_parts)
        for part, new in zip(self.parts, new_parts, strict=True):
            part[:, self.length : end] = new
        return tuple(part[:, :end] for part in self.parts)

    def earlier(self) -> tuple[Tensor, ...]:
        """Return nothing: no loop is before that of a layer outside of the core."""
        return ()

    def committed(self) -> tuple[Tensor, ...]:
        """Return the tensors of the past."""
        return tuple(part[:, : self.length] for part in self.parts)

    def uncommitted(self, num_tokens: int) -> tuple[Tensor, ...]:
        """Return the last written tensors of ``num_tokens`` tokens that are not committed yet."""
        return tuple(part[:, self.length : self.length + num_tokens] for part in self.parts)

    def commit(self, num_tokens: int) -> None:
        """Make the new tokens part of the past."""
        self.length += num_tokens

    def reorder(self, rows_B: Tensor) -> None:
        """Take these rows of the batch, in this order."""
        self.parts = tuple(part.index_select(0, rows_B) for part in self.parts)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(part.nbytes for part in self.parts)

    def _grow(self, end: int, like: tuple[Tensor, ...]) -> None:
        """Allocate the capacity, or twice the needed length if there is none."""
        length = 2 * end if self.capacity is None else self.capacity
        old_parts = self.parts
        self.parts = tuple(new.new_empty(new.shape[0], length, *new.shape[2:]) for new in like)
        for part, old in zip(self.parts, old_parts, strict=False):
            part[:, : self.length] = old[:, : self.length]


class LoopCacheView:
    """Cache of one core layer during one loop. Exited tokens keep the tensors that the previous loop wrote."""

    def __init__(
        self, slot: LayerCache, previous: LayerCache | None, exited_BS: Tensor | None, accumulators: list[Tensor] | None
    ) -> None:
        self.slot = slot
        self.previous = previous
        self.exited_BS = exited_BS
        self.accumulators = accumulators

    def append(self, *new_parts: Tensor) -> tuple[Tensor, ...]:
        """Write the new tokens into the slot and return the tensors of all its tokens."""
        if self.exited_BS is not None and self.previous is not None:
            old_parts = self.previous.uncommitted(new_parts[0].shape[1])
            new_parts = tuple(
                torch.where(self.exited_BS.view(*self.exited_BS.shape, *[1] * (new.dim() - 2)), old, new)
                for old, new in zip(old_parts, new_parts, strict=True)
            )
        if self.accumulators is not None:
            sums = self.accumulators or [torch.zeros_like(new, dtype=torch.float32) for new in new_parts]
            self.accumulators[:] = [total + new for total, new in zip(sums, new_parts, strict=True)]
        return self.slot.append(*new_parts)

    def earlier(self) -> tuple[Tensor, ...]:
        """Return what the loop before attends to in the past; see ``KVCache``."""
        if self.slot.length == 0:
            return ()
        if self.previous is None:
            return tuple(torch.zeros_like(part) for part in self.slot.committed())
        return self.previous.committed()

    def copy_previous(self, num_tokens: int) -> None:
        """Write the tensors that the previous loop wrote, for all new tokens."""
        assert self.previous is not None
        if self.accumulators is not None or self.slot is not self.previous:
            self.append(*self.previous.uncommitted(num_tokens))


class Window(NamedTuple):
    """Positions and attention mask of the new tokens."""

    positions_BS: Tensor
    mask: Tensor | None
    """``[B, 1, S, C]`` over all C tokens; None for plain causal attention."""


class DecodeCache:
    """Cache of a whole model: one for each layer of prelude and coda, and slots that loops share for the core's layers.

    A policy defines how loops share slots (``config.decoding.num_cache_slots``). With every policy the new tokens
    attend to each other's keys and values of the current loop; the policy applies to the tokens before them. A token
    that exits early is cached as if its remaining loops had produced the keys and values of its last one.
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
        """Cache of each loop part; None for a part without one."""
        self.accumulators: list[list[Tensor]] | None = [[] for _ in range(num_core)] if policy == "mean" else None
        """Sums over the loops of the new tokens, for each core layer."""
        self.is_real_BC: Tensor | None = None
        """False at padding; None until padding occurs."""

    def positions_and_mask(self, tokens_BS: Tensor, is_real_BS: Tensor | None = None) -> Window:
        """Return positions and mask of the new tokens; no token attends to padding, and padding has no position.

        Args:
            is_real_BS: False at padding; None without padding.
        """
        num_rows, num_new = tokens_BS.shape
        if is_real_BS is None and self.is_real_BC is None:
            positions_S = torch.arange(self.length, self.length + num_new, device=tokens_BS.device)
            return Window(positions_S.expand_as(tokens_BS), None)
        past = self.is_real_BC
        if past is None:
            past = torch.ones(num_rows, self.length, dtype=torch.bool, device=tokens_BS.device)
        new = torch.ones_like(tokens_BS, dtype=torch.bool) if is_real_BS is None else is_real_BS.bool()
        self.is_real_BC = torch.cat((past, new), dim=1)
        return masked_window(self.is_real_BC, num_new)

    def at(self, loop: int, exited_BS: Tensor | None) -> LoopCache:
        """Return the caches of the core's layers and parts in one loop.

        Args:
            exited_BS: tokens that exited in an earlier loop.
        """
        slots = self.slots[loop % len(self.slots)]
        previous = self.slots[(loop - 1) % len(self.slots)] if loop else [None] * len(slots)
        accumulators = [None] * len(slots) if self.accumulators is None else self.accumulators
        views = [
            LoopCacheView(slots[layer], previous[layer], exited_BS, accumulators[layer]) for layer in range(len(slots))
        ]
        return LoopCache(views, [None if part is None else part.at(loop, exited_BS) for part in self.parts])

    def commit(self, num_new: int, num_loops: int) -> None:
        """Commit the new tokens after ``num_loops`` loops; the remaining loops get the tensors of the last one."""
        for loop in range(num_loops, self.num_loops):
            for view in self.at(loop, None).layers:
                view.copy_previous(num_new)
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
        """Take these rows of the batch, in this order; for beam search."""
        for cache in self._caches():
            cache.reorder(rows_B)
        if self.is_real_BC is not None:
            self.is_real_BC = self.is_real_BC.index_select(0, rows_B)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(cache.num_bytes for cache in self._caches())

    def _layers(self) -> list[LayerCache]:
        return [*self.prelude, *(layer_cache for slot in self.slots for layer_cache in slot), *self.coda]

    def _caches(self) -> list[LayerCache | PartCache]:
        return [*self._layers(), *self._parts()]

    def _parts(self) -> list[PartCache]:
        return [part for part in self.parts if part is not None]


class NoCache:
    """Replacement for a ``DecodeCache`` when all tokens are computed at once and none follow."""

    prelude = None
    coda = None

    def __init__(self, num_loops: int) -> None:
        self.num_loops = num_loops

    def positions_and_mask(self, tokens_BS: Tensor, is_real_BS: Tensor | None = None) -> Window:
        """Return positions and mask; see ``DecodeCache.positions_and_mask``."""
        if is_real_BS is None:
            positions_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)
            return Window(positions_S.expand_as(tokens_BS), None)
        return masked_window(is_real_BS.bool(), tokens_BS.shape[1])

    def at(self, loop: int, exited_BS: Tensor | None) -> LoopCache:
        """Return no caches."""
        assert exited_BS is None, "tokens that exit early need a cache"
        return NO_CACHE

    def commit(self, num_new: int, num_loops: int) -> None:
        """Do nothing."""


def masked_window(is_real_BC: Tensor, num_new: int) -> Window:
    """Return positions and mask of the last ``num_new`` of C tokens, some of which are padding.

    Padding attends to itself, so that no row of scores is empty.
    """
    num_all = is_real_BC.shape[1]
    positions_BC = (is_real_BC.long().cumsum(1) - 1).clamp(min=0)
    causal_SC = causal_mask(num_new, num_all, is_real_BC.device)
    itself_SC = causal_SC & ~causal_SC.tril(num_all - num_new - 1)
    mask_BSC = (causal_SC & is_real_BC[:, None]) | itself_SC
    return Window(positions_BC[:, num_all - num_new :], mask_BSC[:, None])
