"""Compilation of the block, never of the loop (whose backward would hold 2 to 3.5 times the memory)."""

from torch import nn

from mythos.model.block import Block


def compile_blocks(model: nn.Module) -> None:
    """Compile every block in place; parameter names stay, and a drawn depth never recompiles."""
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(dynamic=False)
