"""What attention remembers while decoding."""

from torch import Tensor


class LayerCache:
    """The past of one attention layer at one loop: tensors ``[B, S, ...]`` that grow along S up to a capacity.

    What they hold is the layer's own business: keys and values for GQA, latents and rotated keys for MLA.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.parts: tuple[Tensor, ...] = ()

    def extend(self, *new_parts: Tensor) -> tuple[Tensor, ...]:
        """Append along S and return everything remembered so far, oldest first."""
        end = self.length + new_parts[0].shape[1]
        assert end <= self.capacity, f"cache of {self.capacity} tokens cannot hold {end}"
        if not self.parts:
            self.parts = tuple(new.new_empty(new.shape[0], self.capacity, *new.shape[2:]) for new in new_parts)
        for part, new in zip(self.parts, new_parts, strict=True):
            part[:, self.length : end] = new
        self.length = end
        return tuple(part[:, :end] for part in self.parts)


class DecodeCache:
    """One ``LayerCache`` for each layer of prelude and coda and for each (loop, layer) of the core."""

    def __init__(self, num_prelude: int, num_core: int, num_coda: int, num_loops: int, capacity: int) -> None:
        self.prelude = [LayerCache(capacity) for _ in range(num_prelude)]
        self.core = [[LayerCache(capacity) for _ in range(num_core)] for _ in range(num_loops)]
        self.coda = [LayerCache(capacity) for _ in range(num_coda)]

    @property
    def num_loops(self) -> int:
        """Loops that every token of this cache runs."""
        return len(self.core)

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return self.core[0][0].length
