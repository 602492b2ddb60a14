"""Interface with which a loop part changes the router of a layer."""

from functools import reduce

import torch
from torch import Tensor, nn

from mythos.layers.attention_part import LayerInputs


class RouterPart(nn.Module):
    """The null object, which does not change the router.

    It is a part of the block, not of its mixture of experts, which an expert-parallel engine replaces. Weights belong
    into submodules, whose calls gather them under ZeRO 3.
    """

    def change(self, inputs: LayerInputs) -> Tensor | None:
        """Return what is added to the router's matrix, fp32; None for nothing.

        ``[E, D]``, or ``[B, E, D]`` if the sequences are in different loops.
        """
        return None


class RouterParts(RouterPart):
    """Several parts, whose changes add up."""

    def __init__(self, parts: list[RouterPart]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def change(self, inputs: LayerInputs) -> Tensor | None:
        return reduce(torch.add, [part.change(inputs) for part in self.parts])  # type: ignore[operator]


def router_part(parts: list[RouterPart]) -> RouterPart:
    """Several parts as one, or the null object."""
    return RouterParts(parts) if parts else RouterPart()
