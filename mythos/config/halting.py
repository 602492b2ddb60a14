"""When a token stops thinking."""

from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import Count, NonNegative, Positive, PositiveInt, config

OpenFraction = Annotated[float, Field(gt=0, lt=1, strict=True)]


@config
class FixedHalting:
    """Every token runs all T passes of its step and leaves after the last one."""

    kind: Literal["fixed"] = "fixed"


@config
class ActHalting:
    """Adaptive computation time (Graves 2016, arXiv 1603.08983): coda and head read a weighted mean of the states.

    The weights are halting units until their sum would pass 1 - ``threshold``; that pass, or the last one, takes the
    remainder, so that they always sum to one.
    """

    kind: Literal["act"] = "act"
    hidden_dim: PositiveInt = 64
    """Hidden width of the gate."""
    initial_probability: OpenFraction = 0.1
    """Halting unit at the start; small, so that training begins deep."""
    threshold: OpenFraction = 0.01
    weight: NonNegative = 0.01
    """On the ponder cost: passes used plus the remainder, per token."""
    num_warmup_steps: Count = 0
    """Steps over which the weight rises from zero."""


@config
class PonderHalting:
    """An exit distribution p(t) over passes and the expected loss under it (PonderNet, arXiv 2107.05407; Ouro).

    p(t) = lambda_t prod_{s<t} (1 - lambda_s), and the last pass takes the remainder.
    """

    kind: Literal["ponder"] = "ponder"
    hidden_dim: PositiveInt = 64
    """Hidden width of the gate behind lambda."""
    initial_probability: OpenFraction = 0.1
    """lambda at the start; small, so that training begins deep."""
    num_exits: Annotated[int, Field(ge=2, strict=True)] = 4
    """Exits whose loss is read in a step: the last one and others drawn anew, weighted to leave no bias."""
    prior: Literal["uniform", "geometric"] = "uniform"
    """What p is drawn towards: ``uniform`` is an entropy bonus, ``geometric`` stops with ``prior_probability``."""
    prior_probability: OpenFraction = 0.2
    weight: NonNegative = 0.1
    """On KL(p, prior), per token; the sum with ``uniform`` is Ouro's beta."""
    final_weight: NonNegative | None = None
    """The weight reached at the end of the run, linearly; null keeps ``weight``."""
    num_warmup_steps: Count = 0
    """Steps over which the weight rises from zero."""
    straight_through: bool = False
    """Leave at the median pass in the forward and differentiate p in the backward."""
    train: Literal["all", "gate"] = "all"
    """``gate`` freezes the language model and fits lambda to the improvement that each pass really brings."""
    improvement_sharpness: Positive = 50.0
    """``gate``: the target of going on is sigmoid(sharpness (improvement - margin))."""
    improvement_margin: NonNegative = 0.005
    """``gate``: nats per token that a pass must bring to be worth it."""


HaltingConfig = Annotated[FixedHalting | ActHalting | PonderHalting, Field(discriminator="kind")]
