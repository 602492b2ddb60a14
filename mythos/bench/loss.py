"""Time the vocabulary projection and cross-entropy, forward and backward: in chunks, at once, and by torch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mythos.bench.rows import Row, measure
from mythos.config.base import ConfigError
from mythos.layers.cross_entropy import linear_cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Shape(NamedTuple):
    """The sizes of the head."""

    num_tokens: int
    dim: int
    vocab_size: int

    @property
    def num_flops(self) -> int:
        """FLOPs of one matrix product forward and two backward; the product that chunks recompute is not counted."""
        return 6 * self.num_tokens * self.dim * self.vocab_size


def check(shape: Shape, chunks: list[int]) -> None:
    """Check the shape and the chunk sizes.

    Raises:
        ConfigError: a size is below 1.
    """
    if min(*shape, *chunks) < 1:
        raise ConfigError(f"{shape} with chunks of {chunks}: all sizes must be 1 or more.")


def compare(
    shape: Shape, chunks: list[int], device: torch.device, is_bf16: bool, num_rounds: int, num_warmup: int
) -> list[Row]:
    """Time the arms alternately on fp32 states and weights, under bf16 autocast if ``is_bf16``."""
    generator = torch.Generator(device).manual_seed(0)
    x_ND = torch.randn(shape.num_tokens, shape.dim, generator=generator, device=device).requires_grad_()
    weight_VD = torch.randn(shape.vocab_size, shape.dim, generator=generator, device=device).requires_grad_()
    with torch.no_grad():
        weight_VD *= shape.dim**-0.5
    target_N = torch.randint(shape.vocab_size, (shape.num_tokens,), generator=generator, device=device)

    def step(loss: Loss) -> Callable[[], None]:
        def call() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
                mean = loss(x_ND, weight_VD, target_N)
            torch.autograd.grad(mean, (x_ND, weight_VD))

        return call

    calls = {name: step(loss) for name, loss in arms(shape, chunks).items()}
    return measure(calls, shape.num_flops, device, num_rounds, num_warmup)


def arms(shape: Shape, chunks: list[int]) -> dict[str, Loss]:
    """Functions that return the mean loss of the tokens, by arm; torch's own is the first."""

    def all_logits(x_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        return functional.cross_entropy(functional.linear(x_ND, weight_VD).float(), target_N)

    def chunked(chunk_tokens: int) -> Loss:
        return lambda x_ND, weight_VD, target_N: linear_cross_entropy(
            x_ND, weight_VD, target_N, None, chunk_tokens, is_one_of_many=chunk_tokens < shape.num_tokens
        )[0].mean()

    named = {f"chunks of {size}": chunked(size) for size in chunks if size < shape.num_tokens}
    return {"fp32 logits": all_logits, "training, at once": chunked(shape.num_tokens)} | named
