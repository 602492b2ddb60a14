"""When a token exits the loop."""

from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import Count, NonNegative, Positive, PositiveInt, config

OpenFraction = Annotated[float, Field(gt=0, lt=1, strict=True)]


@config
class FixedHalting:
    """Every token runs all T loops of its step and exits after the last one."""

    kind: Literal["fixed"] = "fixed"


@config
class ActHalting:
    """Adaptive computation time (Graves 2016, arXiv 1603.08983): coda and head read a weighted mean of the states.

    The weights are halting units until their sum would exceed 1 - ``threshold``; that loop, or the last one, takes
    the remainder, so that they always sum to one.
    """

    kind: Literal["act"] = "act"
    hidden_dim: PositiveInt = 64
    """Hidden width of the gate."""
    initial_probability: OpenFraction = 0.1
    """Halting unit at the start; small, so that training begins with many loops."""
    threshold: OpenFraction = 0.01
    """A token exits once its halting units sum to 1 minus this."""
    weight: NonNegative = 0.01
    """Weight of the ponder cost: loops used plus the remainder, per token."""
    num_warmup_steps: Count = 0
    """Steps over which the weight rises from zero."""


@config
class PonderHalting:
    """An exit distribution p(t) over loops and the expected loss under it (PonderNet, arXiv 2107.05407; Ouro).

    p(t) = lambda_t prod_{s<t} (1 - lambda_s), and the last loop takes the remainder.
    """

    kind: Literal["ponder"] = "ponder"
    hidden_dim: PositiveInt = 64
    """Hidden width of the gate that computes lambda."""
    initial_probability: OpenFraction = 0.1
    """lambda at the start; small, so that training begins with many loops."""
    num_exits: Annotated[int, Field(ge=2, strict=True)] = 4
    """Exits whose loss is read in a step: the last one and others drawn in each step, weighted to be unbiased."""
    prior: Literal["uniform", "geometric"] = "uniform"
    """The prior of p: ``uniform`` is an entropy bonus, ``geometric`` exits with ``prior_probability`` in each loop."""
    prior_probability: OpenFraction = 0.2
    """Probability of exiting in each loop under the geometric prior."""
    weight: NonNegative = 0.1
    """Weight of KL(p, prior), per token; with ``uniform`` it is Ouro's beta."""
    final_weight: NonNegative | None = None
    """Weight at the end of the run, reached linearly; null keeps ``weight``."""
    num_warmup_steps: Count = 0
    """Steps over which the weight rises from zero."""
    straight_through: bool = False
    """Exit at the median loop in the forward and differentiate p in the backward."""
    train: Literal["all", "gate"] = "all"
    """``gate`` freezes the language model and fits lambda to the measured improvement of each loop."""
    improvement_sharpness: Positive = 50.0
    """``gate``: the continuation target is sigmoid(sharpness (improvement - margin))."""
    improvement_margin: NonNegative = 0.005
    """``gate``: improvement in nats per token at which the continuation target is one half."""


HaltingConfig = Annotated[FixedHalting | ActHalting | PonderHalting, Field(discriminator="kind")]
