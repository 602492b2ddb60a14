"""Compilation of the parts, never of the loop (whose backward would hold 2 to 3.5 times the memory)."""

from torch import nn

from mythos.loop.injection import Diagonal, Linear
from mythos.model.block import Block
from mythos.model.head import Head

_PARTS = (Block, Diagonal, Linear, Head)
"""What is called again and again with tensors of the same shapes."""


def compile_parts(model: nn.Module) -> None:
    """Compile blocks, injection and head in place; parameter names stay, and a drawn depth never recompiles."""
    for module in model.modules():
        if isinstance(module, _PARTS):
            module.compile(dynamic=False)
