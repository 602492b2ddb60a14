"""Weights of the loss terms; a term of weight zero is left out of the loss."""

from dataclasses import field
from typing import Annotated, Final

from pydantic import Field

from mythos.config.base import NonNegative, PositiveInt, config
from mythos.config.plugins import PluginName

TERM_PLUGINS: Final = "mythos.loss_terms"
"""Entry points of other packages' penalties; ``mythos.losses.terms.Penalty`` is what they name."""


@config
class ObjectiveConfig:
    """loss = nll + weighted penalties; evaluation uses the nll alone."""

    z_loss: NonNegative = 0.0
    """Weight of the squared log-partition of the output logits (PaLM, arXiv 2204.02311)."""
    router_z_loss: NonNegative = 0.0
    """Weight of the squared log-partition of the router logits (ST-MoE, arXiv 2202.08906)."""
    balance_loss: NonNegative = 0.0
    """Weight of the sequence-wise balance of expert load, router bias included (after DeepSeek-V3, arXiv 2412.19437,
    which leaves the bias out)."""
    supervise_loops: NonNegative = 0.0
    """Weight of the mean loss over exits drawn from all loops, in addition to the loss that halting weighs."""
    num_supervised_loops: Annotated[int, Field(ge=2, strict=True)] = 4
    """Exits read for ``supervise_loops``: the last one and others drawn in every step."""
    consistency: NonNegative = 0.0
    """Weight of |h' - h|^2 / |h'|^2 between successive states of the loops that keep gradients."""
    jacobian: NonNegative = 0.0
    """Weight of the squared growth of a small change of the last state over one more loop, along the direction that
    grows fastest (STARS, arXiv 2605.26733)."""
    num_power_iterations: PositiveInt = 2
    """Loops that the search for that direction runs."""
    terms: dict[PluginName, NonNegative] = field(default_factory=dict)
    """Weights of other packages' penalties, by the names of their entry points in ``mythos.loss_terms``."""
