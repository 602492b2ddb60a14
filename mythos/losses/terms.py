"""The penalties: a table from name to weight and formula, open to other packages.

A new penalty is one function, one row of ``TERMS`` and one key of ``ObjectiveConfig``. Another package adds one by an
entry point in the group ``mythos.loss_terms`` that names a ``Penalty``; ``objective.terms`` chooses it.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from torch import Tensor
from torch.nn import functional

from mythos.config import plugins
from mythos.config.base import ConfigError
from mythos.config.halting import ActHalting, PonderHalting
from mythos.config.objective import TERM_PLUGINS
from mythos.config.run import RunConfig
from mythos.loop.exits.distribution import (
    continuation_target,
    divergence_from_prior,
    log_prior,
    log_stick_breaking,
)
from mythos.loop.plan import StepPlan
from mythos.types import IGNORED, Batch, ModelOutput


class TermInputs(NamedTuple):
    """Inputs of a penalty for one micro-batch."""

    config: RunConfig
    output: ModelOutput
    batch: Batch
    """``num_targets`` and ``num_sequences`` are those of the whole step."""
    plan: StepPlan
    weight_X: Tensor
    """Weights that make a sum over the exits unbiased, fp32."""


Penalty = Callable[[float, TermInputs], Tensor | None]
"""Returns the micro-batch's weighted share of the step's penalty, a scalar, from weight and inputs; None leaves it
out."""


class Term(NamedTuple):
    """One row of the table."""

    weight: Callable[[RunConfig, StepPlan], float | None]
    """The weight of a step; None leaves the term out."""
    penalty: Penalty


def output_z(weight: float, inputs: TermInputs) -> Tensor:
    """Return the squared log-partition of the output logits, weighted over exits as the likelihood is."""
    return weight * expected_over_exits(inputs.output.lse_XBS.square(), inputs)


def supervised_loops(weight: float, inputs: TermInputs) -> Tensor:
    """Return the mean over all loops of the negative log-likelihood, estimated from the exits."""
    nll = per_target(inputs.weight_X[:, None, None] * inputs.output.nll_XBS, inputs.batch)
    return weight * (nll / inputs.plan.depth.num_loops)


def router_z(weight: float, inputs: TermInputs) -> Tensor | None:
    """Return the squared log-partition of the router logits; None for a dense core."""
    stats = inputs.output.router_stats
    if stats is None:
        return None
    return weight * (mean_over_grad_loops(stats.z_loss, inputs.plan) / num_tokens(inputs.batch))


def router_balance(weight: float, inputs: TermInputs) -> Tensor | None:
    """Return the sequence-wise balance of expert load; None for a dense core."""
    stats = inputs.output.router_stats
    if stats is None:
        return None
    return weight * (mean_over_grad_loops(stats.balance_loss, inputs.plan) / inputs.batch.num_sequences)


def consistency(weight: float, inputs: TermInputs) -> Tensor | None:
    """Return the squared relative change of the state; None where the forward did not compute it."""
    if inputs.output.change_T is None:
        return None
    return weight * (mean_over_grad_loops(inputs.output.change_T, inputs.plan) / num_tokens(inputs.batch))


def jacobian(weight: float, inputs: TermInputs) -> Tensor | None:
    """Return the squared growth of a small change of the state; None where the forward did not compute it."""
    growth_B = inputs.output.jacobian_growth_B
    return None if growth_B is None else weight * growth_B.sum() / inputs.batch.num_sequences


def ponder_cost(weight: float, inputs: TermInputs) -> Tensor:
    """Return ACT's ponder cost: loops plus remainder."""
    assert inputs.output.ponder_BS is not None
    return weight * per_target(inputs.output.ponder_BS, inputs.batch)


def prior_divergence(weight: float, inputs: TermInputs) -> Tensor:
    """Return KL(p, prior) of the exit distribution, in nats."""
    assert isinstance(inputs.config.halting, PonderHalting)
    assert inputs.output.stop_logit_TBS is not None
    log_prior_T = log_prior(inputs.config.halting, inputs.plan.depth.num_loops)
    divergence_BS = divergence_from_prior(log_stick_breaking(inputs.output.stop_logit_TBS), log_prior_T)
    return weight * per_target(divergence_BS, inputs.batch)


TERMS: Final[Mapping[str, Term]] = {
    "z": Term(lambda run, plan: run.objective.z_loss or None, output_z),
    "supervise_loops": Term(lambda run, plan: run.objective.supervise_loops or None, supervised_loops),
    "router_z": Term(lambda run, plan: run.objective.router_z_loss or None, router_z),
    "balance": Term(lambda run, plan: run.objective.balance_loss or None, router_balance),
    "consistency": Term(lambda run, plan: run.objective.consistency or None, consistency),
    "jacobian": Term(lambda run, plan: run.objective.jacobian or None, jacobian),
    "ponder": Term(lambda run, plan: plan.halting_weight if isinstance(run.halting, ActHalting) else None, ponder_cost),
    "halting": Term(
        lambda run, plan: plan.halting_weight if isinstance(run.halting, PonderHalting) else None, prior_divergence
    ),
}
"""By the name under which the penalty is recorded, in the order in which the loss adds them."""


def load_terms(config: RunConfig) -> Mapping[str, Term]:
    """Return ``TERMS`` and, after them, those that ``objective.terms`` names.

    Raises:
        ConfigError: a name is unknown, is one of ``TERMS``, or its package cannot be imported.
    """
    return {**TERMS, **{name: _foreign(name) for name in config.objective.terms}}


def _foreign(name: str) -> Term:
    path = f"objective.terms.{name}"
    if name in TERMS:
        raise ConfigError(f"{path}: {name!r} is a term of mythos itself; give the entry point another name.")
    penalty: Penalty = plugins.load(TERM_PLUGINS, name, path, fields=["__call__"])
    return Term(lambda run, plan: run.objective.terms[name] or None, penalty)


def gate_loss(config: PonderHalting, output: ModelOutput, batch: Batch) -> Tensor:
    """Return the cross-entropy of the gate with the continuation target, averaged over loops 1 .. T-1."""
    assert output.stop_logit_TBS is not None
    if output.nll_XBS.shape[0] == 1:
        return 0.0 * output.stop_logit_TBS.sum()
    target = continuation_target(output.nll_XBS, config.improvement_sharpness, config.improvement_margin)
    loss = functional.binary_cross_entropy_with_logits(-output.stop_logit_TBS[1:], target, reduction="none")
    return per_target(loss, batch) / loss.shape[0]


def expected_over_exits(value_XBS: Tensor, inputs: TermInputs) -> Tensor:
    """Return the expectation of a value over a token's exits, averaged over targets.

    Where exits are drawn, p weighs the differences from the last exit's value, which all draws contain. Since p sums to
    one this changes no mean; without it, the gradient of p would have the noise of the value itself.
    """
    weight_XBS = inputs.weight_X[:, None, None] * inputs.output.exit_prob_XBS
    is_drawn = isinstance(inputs.config.halting, PonderHalting) and len(weight_XBS) < inputs.plan.depth.num_loops
    if not is_drawn:
        return per_target(weight_XBS * value_XBS, inputs.batch)
    baseline_BS = value_XBS[-1].detach()
    return per_target(baseline_BS + (weight_XBS * (value_XBS - baseline_BS)).sum(0), inputs.batch)


def per_target(value: Tensor, batch: Batch) -> Tensor:
    """Return the sum of ``[..., B, S]`` over target tokens, divided by their number in the whole step."""
    return value.where(batch.targets_BS != IGNORED, 0.0).sum() / batch.num_targets


def mean_over_grad_loops(value_T: Tensor, plan: StepPlan) -> Tensor:
    """Return the mean of ``[T, ...]`` over the last k loops.

    A loop that a row has not entered counts as zero for that row, so that the divisor is that of the step even where
    no row of a micro-batch runs k loops.
    """
    num_grad_loops = plan.depth.num_grad_loops
    return value_T[-num_grad_loops:].sum() / (num_grad_loops * value_T[0].numel())


def num_tokens(batch: Batch) -> Tensor:
    """Return the number of tokens of the whole step."""
    return batch.num_sequences * batch.tokens_BS.shape[1]
