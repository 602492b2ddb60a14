"""A router of its own for each loop."""

import torch
from torch import Generator, Tensor

from mythos.config.loop_parts.loop_router import LoopRouterConfig, num_later_routers
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import LayerInputs
from mythos.layers.router_part import RouterPart
from mythos.loop.parts.depth_lora import LaterLoops


class LoopRouter(RouterPart):
    """R_t = R + N_t in loop t (0-based), R_0 = R; N_t starts random: *not* the identity, but for one loop.

    A state that converges gives a shared router nearly the same input in each loop, so that tokens keep their experts.
    With N_t the routers of two loops start nearly independent of each other.
    """

    def __init__(self, config: LoopRouterConfig, model: ModelConfig) -> None:
        super().__init__()
        assert model.core_ffn.kind == "moe"
        self.table = LaterLoops(num_later_routers(config, model), model.core_ffn.num_experts, model.dim)

    def change(self, inputs: LayerInputs) -> Tensor | None:
        """See ``RouterPart``."""
        assert inputs.row is not None
        with torch.autocast(inputs.row.device.type, enabled=False):
            return self.table(inputs.row).float()


def initialize_table(table_TED: Tensor, config: LoopRouterConfig, generator: Generator) -> None:
    """Fill in all N_t."""
    table_TED.normal_(std=config.scale * table_TED.shape[-1] ** -0.5, generator=generator)
