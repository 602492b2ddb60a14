"""A batch whose rows differ in depth, as the core runs it: sorted deepest first, entering late, ending together."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mythos.layers.transfer import to_device
from mythos.loop.sequences import active_rows
from mythos.types import Batch, ModelOutput, take_rows


class VariableDepthBatch(NamedTuple):
    """Which row runs when. A row of depth T_i has its first pass in pass max(T) - T_i of the batch."""

    order_B: Tensor
    """Place in the caller's batch of each row, deepest first."""
    entry_B: Tensor
    """The batch's pass in which each sorted row enters."""
    num_active_T: list[int]
    """Rows that run in each pass, the first ones of the sorted batch."""

    def own_loop(self, loop: int) -> Tensor:
        """Each active row's own index of the batch's pass ``loop``, ``[active rows]``."""
        return loop - self.entry_B[: self.num_active_T[loop]]

    def sum_by_own_loop(self, value_by_loop: list[Tensor]) -> Tensor:
        """Sums over rows ``[T, ...]`` by the rows' own loop index, from ``[active rows, ...]`` of each pass."""
        own_M = torch.cat([self.own_loop(loop) for loop in range(len(value_by_loop))])
        value_M = torch.cat(value_by_loop)
        return value_M.new_zeros(len(value_by_loop), *value_M.shape[1:]).index_add(0, own_M, value_M)

    def sort(self, batch: Batch) -> Batch:
        """The batch, deepest row first."""
        return take_rows(batch, self.order_B)._replace(num_documents=batch.num_documents)

    def restore(self, output: ModelOutput) -> ModelOutput:
        """What is known of each row, in the order of the caller's batch."""
        place_B = self.order_B.argsort()
        return output._replace(
            nll_XBS=output.nll_XBS[:, place_B],
            lse_XBS=output.lse_XBS[:, place_B],
            exit_prob_XBS=output.exit_prob_XBS[:, place_B],
            state_BSD=output.state_BSD[place_B],
            jacobian_growth_B=None if output.jacobian_growth_B is None else output.jacobian_growth_B[place_B],
        )


def variable_depth_batch(loops_B: np.ndarray, device: torch.device) -> VariableDepthBatch:
    """The plan for rows of these depths; rows of the same depth keep their order."""
    order_B = np.argsort(-loops_B, kind="stable")
    entry_B = loops_B.max() - loops_B[order_B]
    return VariableDepthBatch(
        order_B=to_device(torch.as_tensor(order_B), device),
        entry_B=to_device(torch.as_tensor(entry_B), device),
        num_active_T=active_rows(loops_B),
    )
