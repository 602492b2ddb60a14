"""The loss of a micro-batch: its share of the whole optimiser step's loss, so that shares simply add up."""

from typing import NamedTuple

from torch import Tensor

from mythos.config.objective import ObjectiveConfig
from mythos.types import IGNORED, Batch, ModelOutput


class Loss(NamedTuple):
    """``total`` = ``nll`` + ``penalty``, all scalars."""

    total: Tensor
    nll: Tensor
    """Sum of the expected negative log-likelihood over exits, divided by the step's target tokens."""
    penalty: Tensor
    """Weighted sum of the other terms."""


def objective(config: ObjectiveConfig, output: ModelOutput, batch: Batch, num_grad_loops: int) -> Loss:
    """Weigh a model's output; penalties on routers count the passes that keep gradients."""
    nll = (output.exit_prob_XBS * output.nll_XBS).sum() / batch.num_targets
    penalty = nll.new_zeros(())
    if config.z_loss:
        penalty = penalty + config.z_loss * output_z(output, batch)
    if config.router_z_loss and output.router_stats is not None:
        num_tokens = batch.num_sequences * batch.tokens_BS.shape[1]
        penalty = penalty + config.router_z_loss * _per_pass(output.router_stats.z_loss, num_grad_loops) / num_tokens
    if config.balance_loss and output.router_stats is not None:
        balance = _per_pass(output.router_stats.balance_loss, num_grad_loops)
        penalty = penalty + config.balance_loss * balance / batch.num_sequences
    return Loss(nll + penalty, nll, penalty)


def output_z(output: ModelOutput, batch: Batch) -> Tensor:
    """Expected squared log-partition over exits, summed over targets, divided by the step's targets."""
    squared_XBS = output.lse_XBS.square().where(batch.targets_BS != IGNORED, 0.0)
    return (output.exit_prob_XBS * squared_XBS).sum() / batch.num_targets


def _per_pass(sum_TL: Tensor, num_grad_loops: int) -> Tensor:
    """Mean over the last passes and all layers of a per-layer sum."""
    return sum_TL[-num_grad_loops:].mean()
