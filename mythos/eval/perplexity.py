"""How well a model predicts held-out text, depth by depth."""

import gzip
import lzma
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from mythos.model.mythos import Mythos
from mythos.types import IGNORED, Batch, to_device


class HeldOut(NamedTuple):
    """Totals over a text, by depth."""

    nll_nats: dict[int, float]
    num_targets: int

    def bits_per_byte(self, num_bytes: int) -> dict[int, float]:
        """Code length of the whole text over its length in bytes."""
        return {depth: total / math.log(2) / num_bytes for depth, total in self.nll_nats.items()}

    def nats_per_token(self) -> dict[int, float]:
        """Mean negative log-likelihood of a token."""
        return {depth: total / self.num_targets for depth, total in self.nll_nats.items()}


@torch.no_grad()
def held_out(model: Mythos, batches: Iterable[Batch], depths: tuple[int, ...]) -> HeldOut:
    """Negative log-likelihood of every target at each of the depths, all from one pass over the batches."""
    depths = tuple(sorted(set(depths)))
    exits = tuple(depth - 1 for depth in depths)
    device = model.embedding.weight.device
    total_X = torch.zeros(len(depths), dtype=torch.float64, device=device)
    num_targets = 0
    for host_batch in batches:
        batch = to_device(host_batch, device)
        total_X += model(batch, depths[-1], 0, exits=exits).nll_XBS.sum((1, 2), dtype=torch.float64)
        num_targets += int((batch.targets_BS != IGNORED).sum())
    return HeldOut(dict(zip(depths, total_X.tolist(), strict=True)), num_targets)


def compressed_bits_per_byte(text: bytes) -> dict[str, float]:
    """What general-purpose compressors need for the same text at their strongest setting."""
    sizes = {"gzip -9": len(gzip.compress(text, 9)), "xz -9": len(lzma.compress(text, preset=9))}
    return {name: 8 * size / len(text) for name, size in sizes.items()}
