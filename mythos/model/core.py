"""The recurrent core: a few blocks, looped T times over one state, inside the loop parts."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mythos.config.model import ModelConfig
from mythos.layers.attention_part import AttentionPart, Carry, LayerInputs, attention_part
from mythos.layers.cache import KVCache
from mythos.layers.norm import RMSNorm
from mythos.layers.router_part import router_part
from mythos.loop.build import build_attention_parts, build_parts, build_router_parts
from mythos.loop.injection import UPDATE_RULES, build_injection
from mythos.loop.part import LoopInputs, LoopPart, LoopState, Rest, frozen
from mythos.loop.remat import NO_REMAT, Remat
from mythos.loop.run import ExpertIndices, LoopStats
from mythos.model.block import Block
from mythos.types import RouterStats


class Core(nn.Module):
    """h_{t+1} = part_1(part_2(... update(h_t, e, blocks) ...)); the driver is ``loop.run.run_loop``."""

    router_bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.parts = nn.ModuleList(build_parts(config))
        self.injection = build_injection(config)
        self.update_rule = UPDATE_RULES[config.injection.update_rule]
        is_parallel = config.injection.update_rule == "parallel"
        self.parallel_norm = RMSNorm(config.dim, config.norm_eps) if is_parallel else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(config, config.core_ffn, config.core_residual_scale) for _ in range(config.num_core_layers)
        )
        for block in self.blocks:
            block.get_submodule("attention").part = attention_part(build_attention_parts(config))
            if config.is_moe:
                block.router_part = router_part(build_router_parts(config))
        self.max_loops = config.max_loops
        self.remat: Remat = NO_REMAT
        """Set from outside: recomputation in the backward."""
        num_experts = config.core_ffn.num_experts if config.core_ffn.kind == "moe" else 0
        shape = (config.num_core_layers, config.max_loops, num_experts)
        self.register_buffer("router_bias", torch.zeros(shape))

    def loop_parts(self) -> list[LoopPart]:
        """Return the parts around the blocks, the outermost first."""
        return list(self.parts)  # type: ignore[arg-type]

    def attention_parts(self) -> list[AttentionPart]:
        """Return the part inside the attention of each block."""
        return [block.get_submodule("attention.part") for block in self.blocks]  # type: ignore[misc]

    def leaves(self) -> Iterator[nn.Module]:
        """Yield the modules to compile besides the blocks."""
        if any(True for _ in self.injection.parameters()):
            yield self.injection
        for part in self.loop_parts():
            yield from part.leaves()

    def start(self, h_BSD: Tensor, e_BSD: Tensor) -> LoopState:
        """Return the state before the first loop."""
        return LoopState(
            h_BSD,
            carries=tuple(part.start(h_BSD, e_BSD) for part in self.loop_parts()),
            layer_carries=tuple(part.start(e_BSD) for part in self.attention_parts()),
        )

    def step(
        self, state: LoopState, inputs: LoopInputs, expert_indices: ExpertIndices | None = None
    ) -> tuple[LoopState, LoopStats]:
        """Run one loop; returns the next state and statistics of each block.

        Args:
            expert_indices: expert indices of each block, used instead of routing.
        """
        carries, layer_carries = list(state.carries), list(state.layer_carries)
        stats = LoopStats([], [], [], parts := [()] * len(carries))
        row = inputs.table_row(self.max_loops)
        bias_LE = self.router_bias[:, row]
        row_index = _on_device(row, state.h_BSD)
        is_within = isinstance(row, int) and row == inputs.loop
        loop_index = row_index if is_within else _on_device(inputs.loop, state.h_BSD)

        def blocks(x_BSD: Tensor) -> Tensor:
            shown = [part.for_blocks(carry) for part, carry in zip(self.loop_parts(), carries, strict=True)]
            for layer, block in enumerate(self.blocks):
                of_loop = self.attention_parts()[layer].select(shown)
                of_layer = LayerInputs(row_index, layer_carries[layer], loop_index, of_loop)
                run = partial(_run_block, block, inputs, bias_LE[layer], inputs.cache.layers[layer], of_layer)
                before_BSD, given = x_BSD, None if expert_indices is None else expert_indices[layer]
                x_BSD, (router, layer_carries[layer]), indices_NK = self.remat.block(run, before_BSD, given)
                stats.add(router, inputs.watch(before_BSD, x_BSD), indices_NK)
            return x_BSD

        rest: Rest = partial(self.update_rule, inputs.e_BSD, self.injection, self.parallel_norm, blocks)
        for index, part in reversed(list(enumerate(self.loop_parts()))):
            rest = partial(_run_part, part, index, carries, parts, inputs, rest)
        h_BSD = rest(state.h_BSD)
        return LoopState(h_BSD, tuple(carries), tuple(layer_carries)), stats

    def freeze(self, exited_BS: Tensor, old: LoopState, new: LoopState) -> LoopState:
        """Return the new state, in which exited tokens keep their old values."""
        carries = zip(self.loop_parts(), old.carries, new.carries, strict=True)
        return LoopState(
            frozen(exited_BS, old.h_BSD, new.h_BSD),
            carries=tuple(part.freeze(exited_BS, before, after) for part, before, after in carries),
            layer_carries=frozen(exited_BS, old.layer_carries, new.layer_carries),
        )


def _on_device(index: int | Tensor, like: Tensor) -> Tensor:
    """Return an index as a tensor, so that compiled blocks serve every loop; the device fills it without a copy."""
    return index if isinstance(index, Tensor) else like.new_full((), index, dtype=torch.int64)


def _run_part(
    part: LoopPart, index: int, carries: list[Carry], seen: list[Any], inputs: LoopInputs, rest: Rest, h_BSD: Tensor
) -> Tensor:
    """Run one part around the rest of the loop.

    Its ``forward`` is called without hooks: under ZeRO 3 these would keep the part's weights while the rest runs.
    """
    inputs, before, outputs = inputs.of_part(index), carries[index], []

    def observed_rest(x_BSD: Tensor) -> Tensor:
        outputs.append(rest(x_BSD))
        return outputs[0]

    new_BSD, carries[index] = part.forward(h_BSD, before, inputs, observed_rest)
    seen[index] = inputs.watch_part(part, h_BSD, outputs[0], before, inputs)
    return new_BSD


def _run_block(
    block: nn.Module,
    inputs: LoopInputs,
    bias_E: Tensor,
    cache: KVCache | None,
    of_layer: LayerInputs,
    x_BSD: Tensor,
    expert_indices_NK: Tensor | None,
) -> tuple[Tensor, tuple[RouterStats | None, Carry], Tensor | None]:
    """Run one block, in the form that ``Remat`` calls."""
    output = block(x_BSD, inputs.rotation, inputs.mask, bias_E, cache, expert_indices_NK, of_layer)
    return output.x_BSD, (output.router, output.carry), output.expert_indices_NK
