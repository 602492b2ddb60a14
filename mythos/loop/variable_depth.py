"""Which sequences of a batch run in which loop: all, or those with most loops first if their numbers differ."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mythos.layers.mask import mask_of_rows
from mythos.layers.rope import Rotation
from mythos.layers.transfer import to_device
from mythos.loop.part import LoopInputs, LoopState
from mythos.loop.sequences import active_rows
from mythos.types import Batch, ModelOutput, RouterStats, take_rows


class SameDepth:
    """All sequences run in every loop."""

    def own_loop(self, loop: int) -> int | Tensor:
        """Return the sequences' own index of a loop of the batch, ``[active]``, or one number for all."""
        return loop

    def enter(self, state: LoopState, first: LoopState, loop: int) -> LoopState:
        """Return the state of the sequences that run in this loop; new ones start from their ``first`` state."""
        return state

    def inputs(self, inputs: LoopInputs, loop: int) -> LoopInputs:
        """Return the inputs of the sequences that run in this loop, with their own indices and numbers of loops.

        Args:
            inputs: those of the whole batch, with the batch's index and number of loops.
        """
        return inputs

    def sum_by_own_loop(self, value_by_loop: list[Tensor]) -> Tensor:
        """Return sums over sequences ``[T, ...]`` by their own loop index, from ``[active, ...]`` of each loop."""
        return torch.stack(value_by_loop).sum(1)

    def recount(
        self, num_active: int, router: list[RouterStats], expert_indices: list[Tensor | None]
    ) -> Iterator[Tensor]:
        """Yield tokens of each sequence by expert, ``[active, L, E]``, if the router counts mix loops."""
        return iter(())

    def scatter(self, all_TR: Tensor, loop: int, value_R: Tensor) -> None:
        """Write the values ``[active, ...]`` of a loop into ``[T, B, ...]``, by the sequences' own loops."""
        all_TR[loop] = value_R

    def sort(self, batch: Batch) -> Batch:
        """Return the batch in the order in which it runs."""
        return batch

    def restore(self, output: ModelOutput) -> ModelOutput:
        """Return the output with all values per sequence in the order of the caller's batch."""
        return output


class VariableDepthBatch(NamedTuple):
    """A sequence of T_i loops enters in loop max(T) - T_i of the batch; all end together."""

    order_B: Tensor
    """Index of each sequence in the caller's batch, those with most loops first."""
    entry_B: Tensor
    """Loop of the batch in which each sorted sequence enters."""
    num_active_T: list[int]
    """Number of sequences that run in each loop, the first ones of the sorted batch."""

    def own_loop(self, loop: int) -> Tensor:
        """See ``SameDepth``; ``loop`` may be the one after the last."""
        return loop - self.entry_B[: self.num_active_T[min(loop, len(self.num_active_T) - 1)]]

    def enter(self, state: LoopState, first: LoopState, loop: int) -> LoopState:
        """See ``SameDepth``."""
        num_running, num_active = state.h_BSD.shape[0], self.num_active_T[loop]
        if num_running >= num_active:
            return state.map(lambda x: x[:num_active])
        return tree_map(lambda running, new: torch.cat((running, new[num_running:num_active])), state, first)

    def inputs(self, inputs: LoopInputs, loop: int) -> LoopInputs:
        """See ``SameDepth``."""
        num_active = self.num_active_T[loop]
        return inputs._replace(
            e_BSD=inputs.e_BSD[:num_active],
            rotation=Rotation(*(part[:num_active] for part in inputs.rotation)),
            mask=None if inputs.mask is None else mask_of_rows(inputs.mask, num_active),
            loop=self.own_loop(loop),
            num_loops=self.own_loop(len(self.num_active_T))[:num_active],
        )

    def sum_by_own_loop(self, value_by_loop: list[Tensor]) -> Tensor:
        """See ``SameDepth``."""
        own_M = torch.cat([self.own_loop(loop) for loop in range(len(value_by_loop))])
        value_M = torch.cat(value_by_loop)
        return value_M.new_zeros(len(value_by_loop), *value_M.shape[1:]).index_add(0, own_M, value_M)

    @torch.no_grad()
    def recount(
        self, num_active: int, router: list[RouterStats], expert_indices: list[Tensor | None]
    ) -> Iterator[Tensor]:
        """See ``SameDepth``: the router's counts mix the sequences' own loops."""
        indices_BLM = torch.stack([each.view(num_active, -1) for each in expert_indices if each is not None], 1).long()
        zeros_BLE = indices_BLM.new_zeros(*indices_BLM.shape[:2], router[0].counts_E.shape[-1])
        return iter((zeros_BLE.scatter_add_(2, indices_BLM, torch.ones_like(indices_BLM)),))

    def scatter(self, all_TR: Tensor, loop: int, value_R: Tensor) -> None:
        """See ``SameDepth``."""
        all_TR[self.own_loop(loop), torch.arange(value_R.shape[0], device=value_R.device)] = value_R

    def sort(self, batch: Batch) -> Batch:
        """See ``SameDepth``."""
        return take_rows(batch, self.order_B)._replace(num_documents=batch.num_documents)

    def restore(self, output: ModelOutput) -> ModelOutput:
        """See ``SameDepth``."""
        position_B = self.order_B.argsort()
        growth_B = output.jacobian_growth_B
        return output._replace(
            nll_XBS=output.nll_XBS[:, position_B],
            lse_XBS=output.lse_XBS[:, position_B],
            exit_prob_XBS=output.exit_prob_XBS[:, position_B],
            state_BSD=output.state_BSD[position_B],
            jacobian_growth_B=None if growth_B is None else growth_B[position_B],
        )


Sequences = SameDepth | VariableDepthBatch
SAME_DEPTH = SameDepth()


def variable_depth_batch(loops_B: np.ndarray, device: torch.device) -> VariableDepthBatch:
    """Return the plan for sequences of these numbers of loops; sequences with equal numbers keep their order."""
    order_B = np.argsort(-loops_B, kind="stable")
    entry_B = loops_B.max() - loops_B[order_B]
    return VariableDepthBatch(
        order_B=to_device(torch.as_tensor(order_B), device),
        entry_B=to_device(torch.as_tensor(entry_B), device),
        num_active_T=active_rows(loops_B),
    )
