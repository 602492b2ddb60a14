"""Compilation of the parts, never of the loop (whose backward would hold 2 to 3.5 times the memory)."""

from torch import nn

from mythos.layers.ffn import SwiGLU
from mythos.loop.injection import Diagonal, Linear
from mythos.loop.state import Noise
from mythos.model.block import Block
from mythos.model.head import Head
from mythos.moe.layer import MoE
from mythos.moe.router import Router

_PARTS = (Block, Diagonal, Linear, Noise, Head)
"""What is called again and again with tensors of the same shapes."""


def compile_parts(model: nn.Module) -> None:
    """Compile blocks, injection, noise and head in place; parameter names stay, and a drawn depth never recompiles.

    A mixture whose experts lie on several ranks stays out of its block's graph, as what it does depends on sizes that
    the host reads; then its router and shared experts are compiled by themselves.
    """
    for module in model.modules():
        if isinstance(module, _PARTS):
            module.compile(dynamic=False)
        if isinstance(module, Block) and module.is_moe and not isinstance(module.ffn, MoE):
            for part in module.ffn.modules():
                if isinstance(part, (Router, SwiGLU)):
                    part.compile(dynamic=False)
