"""Changes of low rank of attention and router in each loop after the first."""

import torch
from torch import Tensor, nn

from mythos.config.loop_parts.depth_lora import DepthLoraConfig, head_widths, num_rows
from mythos.config.model import ModelConfig
from mythos.layers.attention_part import AttentionPart, LayerInputs
from mythos.layers.router_part import RouterPart
from mythos.loop.part import LoopPart


class DepthLora(LoopPart):
    """W_t = W + B_t A_t of rank r in loop t (0-based), W_0 = W; B_t starts at zero: the identity.

    Relaxed recursive transformers (Bae et al. 2024, arXiv 2410.20672) loosen tied layers in this way. Here A_t and B_t
    are tables over the loops after the first, so that one loop is the model without the part whatever they hold; loops
    beyond the tables read their last row. They change the projections of GQA to queries, keys and values, or those of
    MLA to queries, to the normalised latent and to the shared rotated key, and the router's matrix.
    """

    def __init__(self, config: DepthLoraConfig, model: ModelConfig) -> None:
        super().__init__()


class AttentionLora(AttentionPart):
    """Changes the projections of one layer's attention; all of them read one product with the layer's input."""

    def __init__(self, config: DepthLoraConfig, model: ModelConfig) -> None:
        super().__init__()
        widths = head_widths(model)
        self.down = LaterLoops(num_rows(model), len(widths) * config.rank, model.dim)
        self.up = nn.ModuleDict({name: LaterLoops(num_rows(model), w, config.rank) for name, w in widths.items()})

    def project(self, x_BSD: Tensor, heads: tuple[Tensor, ...], inputs: LayerInputs) -> tuple[Tensor, ...]:
        """See ``AttentionPart``."""
        hidden = (x_BSD @ self.down(inputs.row).mT).chunk(len(heads), dim=-1)
        changes = [part_BSR @ up(inputs.row).mT for part_BSR, up in zip(hidden, self.up.values(), strict=True)]
        return tuple(head + change.view_as(head) for head, change in zip(heads, changes, strict=True))


class RouterLora(RouterPart):
    """Changes the router's matrix of one layer, so that logits and selection remain one operation on a GPU."""

    def __init__(self, config: DepthLoraConfig, model: ModelConfig) -> None:
        super().__init__()
        assert model.core_ffn.kind == "moe"
        self.router_down = LaterLoops(num_rows(model), config.rank, model.dim)
        self.router_up = LaterLoops(num_rows(model), model.core_ffn.num_experts, config.rank)

    def change(self, inputs: LayerInputs) -> Tensor | None:
        """See ``RouterPart``."""
        assert inputs.row is not None
        with torch.autocast(inputs.row.device.type, enabled=False):
            return self.router_up(inputs.row).float() @ self.router_down(inputs.row).float()


class LaterLoops(nn.Module):
    """One matrix for each loop after the first, where it is zero; loops beyond the table read its last row."""

    def __init__(self, num_rows: int, num_out: int, num_in: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_rows, num_out, num_in))

    def forward(self, row: Tensor) -> Tensor:
        """Return the matrix of a loop, ``[out, in]``, or for indices ``[B]`` one for each sequence."""
        later = row.reshape(-1)  # a scalar index would make the host wait for the device
        matrices = self.weight.index_select(0, (later - 1).clamp(0, len(self.weight) - 1)) * (later > 0).view(-1, 1, 1)
        return matrices if row.dim() else matrices.squeeze(0)
