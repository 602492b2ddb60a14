"""The loss of a micro-batch: its share of the whole optimiser step's loss, so that shares simply add up."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mythos.config.halting import ActHalting, PonderHalting
from mythos.config.run import RunConfig
from mythos.layers.transfer import to_device
from mythos.loop.exits.distribution import continuation_target, divergence_from_prior, prior
from mythos.loop.plan import StepPlan
from mythos.types import IGNORED, Batch, ModelOutput


class Loss(NamedTuple):
    """``total`` = ``nll`` + the sum of ``terms``, all scalars; a stage that trains only the gate leaves out ``nll``."""

    total: Tensor
    nll: Tensor
    """Expected negative log-likelihood per target token of the step, in nats."""
    terms: dict[str, Tensor]
    """Weighted penalties by name."""


def objective(config: RunConfig, output: ModelOutput, batch: Batch, plan: StepPlan) -> Loss:
    """Weigh a model's output."""
    weight_X = to_device(torch.tensor(plan.exits.weights), output.nll_XBS.device)
    nll = _per_target(weight_X[:, None, None] * output.exit_prob_XBS * output.nll_XBS, batch)
    terms = penalties(config, output, batch, plan, weight_X)
    if isinstance(config.halting, PonderHalting) and config.halting.train == "gate":
        terms = {"gate": gate_loss(config.halting, output, batch)}
        return Loss(terms["gate"], nll.detach(), terms)
    return Loss(sum(terms.values(), nll), nll, terms)


def penalties(
    config: RunConfig, output: ModelOutput, batch: Batch, plan: StepPlan, weight_X: Tensor
) -> dict[str, Tensor]:
    """Every term of non-zero weight; those on routers and states are means over the passes that keep gradients."""
    weights, num_grad_loops = config.objective, plan.depth.num_grad_loops
    terms: dict[str, Tensor] = {}
    if weights.z_loss:
        squared = weight_X[:, None, None] * output.exit_prob_XBS * output.lse_XBS.square()
        terms["z"] = weights.z_loss * _per_target(squared, batch)
    if weights.supervise_loops:
        every_loop = _per_target(weight_X[:, None, None] * output.nll_XBS, batch) / plan.depth.num_loops
        terms["supervise_loops"] = weights.supervise_loops * every_loop
    num_tokens = batch.num_sequences * batch.tokens_BS.shape[1]
    if output.router_stats is not None and weights.router_z_loss:
        mean = _over_grad_loops(output.router_stats.z_loss, num_grad_loops) / num_tokens
        terms["router_z"] = weights.router_z_loss * mean
    if output.router_stats is not None and weights.balance_loss:
        mean = _over_grad_loops(output.router_stats.balance_loss, num_grad_loops) / batch.num_sequences
        terms["balance"] = weights.balance_loss * mean
    if output.change_T is not None and weights.consistency:
        mean = _over_grad_loops(output.change_T, num_grad_loops) / num_tokens
        terms["consistency"] = weights.consistency * mean
    if output.jacobian_growth_B is not None and weights.jacobian:
        terms["jacobian"] = weights.jacobian * output.jacobian_growth_B.sum() / batch.num_sequences
    match config.halting:
        case ActHalting():
            assert output.ponder_BS is not None
            terms["ponder"] = plan.halting_weight * _per_target(output.ponder_BS, batch)
        case PonderHalting() as halting:
            assert output.halting_TBS is not None
            wanted = prior(halting, plan.depth.num_loops)
            divergence_BS = divergence_from_prior(output.halting_TBS, wanted)
            terms["halting"] = plan.halting_weight * _per_target(divergence_BS, batch)
    return terms


def gate_loss(config: PonderHalting, output: ModelOutput, batch: Batch) -> Tensor:
    """Binary cross-entropy of going on against the improvement that a pass brought, a mean over passes 1 .. T-1."""
    assert output.stop_logit_TBS is not None
    if output.nll_XBS.shape[0] == 1:
        return 0.0 * output.stop_logit_TBS.sum()
    target = continuation_target(output.nll_XBS, config.improvement_sharpness, config.improvement_margin)
    going_on = -output.stop_logit_TBS[1:]
    loss = functional.binary_cross_entropy_with_logits(going_on, target, reduction="none")
    return _per_target(loss, batch) / loss.shape[0]


def _over_grad_loops(value_T: Tensor, num_grad_loops: int) -> Tensor:
    """Mean of ``[T, ...]`` over the last k passes; one that a shallow row has not entered counts as zero for it.

    So the divisor is that of the step even where the deepest row of a micro-batch runs fewer passes than k.
    """
    return value_T[-num_grad_loops:].sum() / (num_grad_loops * value_T[0].numel())


def _per_target(value: Tensor, batch: Batch) -> Tensor:
    """Sum of ``[..., B, S]`` over target tokens, divided by those of the whole step."""
    return value.where(batch.targets_BS != IGNORED, 0.0).sum() / batch.num_targets
