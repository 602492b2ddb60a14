"""The loss of a micro-batch: its share of the whole optimiser step's loss, so that shares add up."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mythos.config.halting import PonderHalting
from mythos.config.run import RunConfig
from mythos.layers.transfer import to_device
from mythos.loop.plan import StepPlan
from mythos.losses.terms import TERMS, Term, TermInputs, expected_over_exits, gate_loss
from mythos.types import Batch, ModelOutput


class Loss(NamedTuple):
    """``total`` = ``nll`` + the sum of ``terms``, all scalars; a stage that trains only the gate leaves out ``nll``."""

    total: Tensor
    nll: Tensor
    """Expected negative log-likelihood per target token of the step, in nats."""
    terms: dict[str, Tensor]
    """Weighted penalties by name."""


def objective(
    config: RunConfig, output: ModelOutput, batch: Batch, plan: StepPlan, terms: Mapping[str, Term] = TERMS
) -> Loss:
    """Compute the loss: the negative log-likelihood and the penalties.

    Args:
        terms: see ``load_terms``.
    """
    weight_X = to_device(torch.tensor(plan.exits.weights), output.nll_XBS.device)
    inputs = TermInputs(config, output, batch, plan, weight_X)
    nll = expected_over_exits(output.nll_XBS, inputs)
    if isinstance(config.halting, PonderHalting) and config.halting.train == "gate":
        penalty = gate_loss(config.halting, output, batch)
        return Loss(penalty, nll.detach(), {"gate": penalty})
    weighted = penalties(terms, inputs)
    return Loss(sum(weighted.values(), nll), nll, weighted)


def penalties(terms: Mapping[str, Term], inputs: TermInputs) -> dict[str, Tensor]:
    """Return every penalty that has a weight in this step and a value for this model, in the order of the table."""
    weighted: dict[str, Tensor] = {}
    for name, term in terms.items():
        weight = term.weight(inputs.config, inputs.plan)
        penalty = None if weight is None else term.penalty(weight, inputs)
        if penalty is not None:
            weighted[name] = penalty
    return weighted
