"""Bytes of decoding: cached keys and values of every layer and loop, and the states of the tokens in flight."""

from dataclasses import dataclass
from math import prod

from mythos.config.base import FP32_BYTES
from mythos.config.decoding import num_cache_slots
from mythos.config.model import ModelConfig
from mythos.config.parts import parts_of


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeBytes:
    """Bytes of decoding one batch."""

    once: int
    """Caches of prelude and coda."""
    core: int
    """Caches of the core, one for each slot and layer."""
    parts: int
    """Caches of the loop parts."""
    states: int
    """The state h, what the parts carry, and the injected e of the tokens in flight, fp32."""

    @property
    def cache(self) -> int:
        """Caches of all layers."""
        return self.once + self.core + self.parts


def decode_bytes(
    model: ModelConfig,
    num_loops: int,
    num_tokens: int,
    cache_policy: str = "all",
    *,
    num_sequences: int = 1,
    num_in_flight: int = 1,
    width: int = FP32_BYTES,
) -> DecodeBytes:
    """Count the memory of decoding without weights and without activations within a block.

    A plain transformer of the same effective depth caches as much as policy ``all``; one with the same parameters
    caches as much as a single loop.

    Args:
        num_tokens: capacity of the cache, for each sequence.
        cache_policy: how loops share it; see ``config.decoding.num_cache_slots``.
        num_in_flight: tokens of each sequence that are decoded at one time: 1, or the whole prompt.
        width: bytes of a cached element: 4, or 2 in bf16.
    """
    parts = parts_of(model)
    cached_by_parts = sum(part.spec.cached_elements(part.config, model, num_loops) for part in parts)
    carried = sum(part.spec.carry_elements(part.config, model) for part in parts)
    carried_by_sequence = sum(part.spec.of_sequence.carry_elements(part.config, model) for part in parts)
    layer = num_cached_elements(model) * num_tokens * num_sequences * width
    return DecodeBytes(
        once=(model.num_prelude_layers + model.num_coda_layers) * layer,
        core=num_cache_slots(cache_policy, num_loops) * model.num_core_layers * layer,
        parts=cached_by_parts * num_tokens * num_sequences * width,
        states=((2 * model.dim + carried) * num_in_flight + carried_by_sequence) * num_sequences * FP32_BYTES,
    )


def num_cached_elements(model: ModelConfig) -> int:
    """Elements that one attention layer caches for one token."""
    return sum(map(prod, model.cached_shapes))
