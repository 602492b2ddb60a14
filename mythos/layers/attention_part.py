"""Interface with which a loop part changes the attention of a layer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mythos.layers.cache import KVCache
from mythos.layers.mask import Mask

Carry = Any
"""State from loop to loop: a pytree of tensors of fixed shapes, batch first; () without state."""

Attend = Callable[[tuple[Tensor, ...], Mask | None], Tensor]
"""Attention of a layer's queries over a ``memory`` with a mask; returns the values of each head, ``[B, S, H, P]``."""


class LayerInputs(NamedTuple):
    """Inputs of the parts of a layer's attention."""

    row: Tensor | None = None
    """Row of tables over loops, a scalar, or ``[B]`` with one for each sequence; None outside of the core."""
    carry: Carry = ()
    loop: Tensor | None = None
    """Index of the loop, a scalar, or ``[B]`` with one for each sequence; None outside of the core."""
    loop_carry: Carry = ()
    """What the loop part, to which the part in the layer belongs, shows of its carry; see ``LoopPart.for_blocks``."""
    unplaced: Callable[[Tensor], tuple[Tensor, ...]] = lambda x_BCD: ()
    """The layer's function from normed vectors ``[B, C, D]`` without a position to a ``memory`` of them."""
    earlier: tuple[Tensor, ...] = ()
    """While decoding, what the cache contains of the earlier tokens in the loop before, shaped like ``memory``; zeros
    in the first loop; () without earlier tokens."""


NO_INPUTS = LayerInputs()


class AttentionPart(nn.Module):
    """The null object, which does not change attention.

    ``heads`` are a layer's query, key and value ``[B, S, H, P]`` before normalisation and rotation, for MLA query,
    latent ``[B, S, R]`` and shared key. ``memory`` holds the attended tensors: keys and values ``[B, C, G, P]``, for
    MLA latents and rotated keys. Weights belong into submodules, whose calls gather them under ZeRO 3.
    """

    attends_to_tokens = True
    """Whether what ``attend_further`` reads are tokens, so that a trace can show it."""

    def start(self, e_BSD: Tensor) -> Carry:
        """Return the carry of the first loop."""
        return ()

    def project(self, x_BSD: Tensor, heads: tuple[Tensor, ...], inputs: LayerInputs) -> tuple[Tensor, ...]:
        """Return changed projections of the layer's input."""
        return heads

    def attend_to(
        self, memory: tuple[Tensor, ...], mask: Mask | None, inputs: LayerInputs
    ) -> tuple[tuple[Tensor, ...], Mask | None]:
        """Return keys and values with further ones, and the mask over all of them."""
        return memory, mask

    def attend_further(self, mixed_BSHP: Tensor, attend: Attend, mask: Mask | None, inputs: LayerInputs) -> Tensor:
        """Return what the heads read with further attention added, before the output projection.

        Args:
            mask: the layer's mask, as ``attend_to`` received it.
        """
        return mixed_BSHP

    def remember(self, written: tuple[Tensor, ...], inputs: LayerInputs) -> Carry:
        """Return the next carry, given the keys and values of the new tokens."""
        return inputs.carry

    def select(self, carries: Sequence[Carry]) -> Carry:
        """Return what ``LayerInputs.loop_carry`` is, from what all loop parts show to the blocks."""
        return ()

    def gates(self) -> Tensor | None:
        """Return the factors of what the part adds, a vector with one for each head; None if it has none."""
        return None


def attend_with(
    part: AttentionPart,
    read: Attend,
    written: tuple[Tensor, ...],
    mask: Mask | None,
    cache: KVCache | None,
    inputs: LayerInputs,
) -> tuple[Tensor, Carry]:
    """Attend to what a layer writes and to its cache, as its part changes that.

    Args:
        read: attention of the layer's queries.
        written: keys and values of the new tokens, for MLA latents and rotated keys.

    Returns:
        The values of each head, ``[B, S, H, P]``, and the part's next carry.
    """
    carry, memory = part.remember(written, inputs), written
    if cache is not None:
        inputs, memory = inputs._replace(earlier=cache.earlier()), cache.append(*written)
    mixed_BSHP = read(*part.attend_to(memory, mask, inputs))
    return part.attend_further(mixed_BSHP, read, mask, inputs), carry


class AttentionParts(AttentionPart):
    """Several parts, applied in order; both carries are tuples with an element for each.

    ``parts`` has an element for each loop part, None where nothing of it is inside attention.
    """

    def __init__(self, parts: Sequence[AttentionPart | None]) -> None:
        super().__init__()
        self.indices = [index for index, part in enumerate(parts) if part is not None]
        self.parts = nn.ModuleList(part for part in parts if part is not None)

    def start(self, e_BSD: Tensor) -> Carry:
        return tuple(part.start(e_BSD) for part in self._parts())

    def each(self, inputs: LayerInputs) -> Iterator[tuple[AttentionPart, LayerInputs]]:
        """Yield each part and its inputs."""
        shown = inputs.loop_carry or ((),) * len(self.parts)  # () in a layer that is called alone
        for part, carry, of_loop in zip(self._parts(), inputs.carry, shown, strict=True):
            yield part, inputs._replace(carry=carry, loop_carry=of_loop)

    def select(self, carries: Sequence[Carry]) -> Carry:
        return tuple(carries[index] for index in self.indices)

    def project(self, x_BSD: Tensor, heads: tuple[Tensor, ...], inputs: LayerInputs) -> tuple[Tensor, ...]:
        for part, own in self.each(inputs):
            heads = part.project(x_BSD, heads, own)
        return heads

    def attend_to(
        self, memory: tuple[Tensor, ...], mask: Mask | None, inputs: LayerInputs
    ) -> tuple[tuple[Tensor, ...], Mask | None]:
        for part, own in self.each(inputs):
            memory, mask = part.attend_to(memory, mask, own)
        return memory, mask

    def attend_further(self, mixed_BSHP: Tensor, attend: Attend, mask: Mask | None, inputs: LayerInputs) -> Tensor:
        for part, own in self.each(inputs):
            mixed_BSHP = part.attend_further(mixed_BSHP, attend, mask, own)
        return mixed_BSHP

    def remember(self, written: tuple[Tensor, ...], inputs: LayerInputs) -> Carry:
        return tuple(part.remember(written, own) for part, own in self.each(inputs))

    def _parts(self) -> list[AttentionPart]:
        return list(self.parts)  # type: ignore[arg-type]


def gate_figures(size_by_layer: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean and largest absolute gate over all layers, by the names of their figures; {} without gates."""
    sizes = list(size_by_layer)
    return {"gate": torch.cat(sizes).mean(), "largest_gate": torch.cat(sizes).max()} if sizes else {}


def attention_part(parts: Sequence[AttentionPart | None]) -> AttentionPart:
    """Several parts as one, or the null object; see ``AttentionParts``."""
    return AttentionPart() if all(part is None for part in parts) else AttentionParts(parts)
