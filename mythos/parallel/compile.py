"""Compilation of the parts but not of the loop, whose compiled backward would need 2 to 3.5 times the memory."""

from torch import nn

from mythos.layers.ffn import SwiGLU
from mythos.loop.state import Noise
from mythos.model.block import Block
from mythos.model.core import Core
from mythos.model.head import Head
from mythos.moe.layer import MoE
from mythos.moe.router import Router

_PARTS = (Block, Noise, Head)
"""Modules that are called many times with tensors of the same shapes."""


def compile_parts(model: nn.Module) -> None:
    """Compile blocks, injection, loop parts, noise and head in place; a new num_loops does not recompile.

    An expert-parallel mixture is excluded from its block's graph, because it depends on sizes that the host reads; its
    router and shared experts are compiled separately.
    """
    for module in model.modules():
        if isinstance(module, _PARTS):
            module.compile(dynamic=False)
        if isinstance(module, Core):
            for leaf in module.leaves():
                leaf.compile(dynamic=False)
        if isinstance(module, Block) and module.is_moe and not isinstance(module.ffn, MoE):
            for part in module.ffn.modules():
                if isinstance(part, (Router, SwiGLU)):
                    part.compile(dynamic=False)
