"""Loss of a model on held-out text, by number of loops."""

import gzip
import lzma
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from mythos.model.mythos import Mythos
from mythos.types import IGNORED, Batch, to_device


class HeldOutLoss(NamedTuple):
    """Negative log-likelihood of a text, summed over its tokens, by number of loops."""

    nll_nats: dict[int, float]
    num_targets: int

    def bits_per_byte(self, num_bytes: int) -> dict[int, float]:
        """Code length of the whole text in bits, divided by its length in bytes."""
        return {num_loops: total / math.log(2) / num_bytes for num_loops, total in self.nll_nats.items()}

    def nats_per_token(self) -> dict[int, float]:
        """Mean negative log-likelihood of a token in nats."""
        return {num_loops: total / self.num_targets for num_loops, total in self.nll_nats.items()}


@torch.no_grad()
def held_out_loss(model: Mythos, batches: Iterable[Batch], loop_counts: tuple[int, ...]) -> HeldOutLoss:
    """Sum the negative log-likelihood of all targets at each number of loops, reading the batches once."""
    loop_counts = tuple(sorted(set(loop_counts)))
    exits = tuple(num_loops - 1 for num_loops in loop_counts)
    device = model.embedding.weight.device
    total_X = torch.zeros(len(loop_counts), dtype=torch.float64, device=device)
    num_targets = 0
    for host_batch in batches:
        batch = to_device(host_batch, device)
        total_X += model(batch, loop_counts[-1], 0, exits=exits).nll_XBS.sum((1, 2), dtype=torch.float64)
        num_targets += int((batch.targets_BS != IGNORED).sum())
    return HeldOutLoss(dict(zip(loop_counts, total_X.tolist(), strict=True)), num_targets)


def compressed_bits_per_byte(text: bytes) -> dict[str, float]:
    """Bits per byte of general-purpose compressors on a text, at their strongest setting."""
    sizes = {"gzip -9": len(gzip.compress(text, 9)), "xz -9": len(lzma.compress(text, preset=9))}
    return {name: 8 * size / len(text) for name, size in sizes.items()}
