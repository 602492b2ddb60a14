"""How many loops a step runs (T), and how many of the last loops keep gradients (k)."""

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import Positive, PositiveInt, PositiveInts, config


@config
class Ramp:
    """The first steps of a run: the mean of T, or k, or both, rise from a start value to those of the policy."""

    num_steps: PositiveInt
    """Length of the ramp; this step is the first with the values of the policy."""
    shape: Literal["linear", "one_minus_sqrt"] = "linear"
    """Progress at x = step / num_steps: x, or 1 - sqrt(1 - x), which starts at half the pace and ends steeply."""
    start_mean: Positive | None = None
    """Mean of T in step 0; null leaves it without a ramp."""
    start_grad_loops: PositiveInt | None = None
    """k in step 0; null leaves it without a ramp."""

    def __post_init__(self) -> None:
        if self.start_mean is None and self.start_grad_loops is None:
            raise ValueError("neither start_mean nor start_grad_loops is given; set one of them, or set ramp=null.")


@config
class GrowthStage:
    """From ``step`` on, the mean of T is ``mean``."""

    step: PositiveInt
    """First optimiser step with this mean."""
    mean: Positive
    """Mean of T from then on."""
    num_grad_loops: PositiveInt | None = None
    """k from then on; null means the policy's ``num_grad_loops``, or half of this mean, rounded up."""


@config
class GradientRule:
    """Fields of every kind: how the loops that keep gradients move the state."""

    damping: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    """Loops that keep gradients compute (1 - damping) h + damping F(h), in training only (the phantom gradient, Geng
    et al. 2021, arXiv 2111.05177); 1 is plain truncated backpropagation."""


@config
class FixedDepth(GradientRule):
    """The same T in every step."""

    kind: Literal["fixed"] = "fixed"
    num_loops: PositiveInt
    """T, the number of loops of every step."""
    num_grad_loops: PositiveInt | None = None
    """k; null keeps the gradients of all loops."""

    def __post_init__(self) -> None:
        if self.num_grad_loops is not None and self.num_grad_loops > self.num_loops:
            raise ValueError(
                f"num_grad_loops is {self.num_grad_loops} but num_loops is {self.num_loops}; "
                "no more loops can keep gradients than are run."
            )
        _check_damping(self)

    @property
    def per_sequence(self) -> bool:
        """False: no number of loops is drawn."""
        return False

    @property
    def mean(self) -> float:
        """The mean number of loops."""
        return float(self.num_loops)

    @property
    def max_loops(self) -> int:
        """The largest T."""
        return self.num_loops

    @property
    def grad_loops(self) -> int:
        """k with its default filled in."""
        return self.num_grad_loops or self.num_loops


@config
class Drawn(GradientRule):
    """Fields of every kind that draws T."""

    num_grad_loops: PositiveInt | None = None
    """k: the largest number of loops that keep gradients; null means half the mean, rounded up."""
    per_sequence: bool = False
    """Draw T for each sequence by its sample id, rather than once for the whole optimiser step."""
    ramp: Ramp | None = None
    """How the run begins; null begins with the values of the policy."""
    growth: tuple[GrowthStage, ...] = ()
    """Later changes of the mean, in ascending order of step."""


@config
class PoissonDepth(Drawn):
    """T drawn from a Poisson distribution and clamped to [1, max_loops] (Parcae, arXiv 2604.12946)."""

    kind: Literal["poisson"] = "poisson"
    mean: Positive
    """Mean of the Poisson distribution before clamping."""
    max_loops: PositiveInt = 32
    """Largest T; larger draws are clamped to it."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def grad_loops(self) -> int:
        """k with its default filled in, without the curriculum."""
        return self.num_grad_loops or default_grad_loops(self.mean)


@config
class LogNormalPoissonDepth(Drawn):
    """T = 1 + Poisson(e^tau), tau ~ N(log(mean) - sigma^2 / 2, sigma), at most max_loops (Huginn, arXiv 2502.05171)."""

    kind: Literal["lognormal_poisson"] = "lognormal_poisson"
    mean: Positive
    """Mean of e^tau: T is ``mean`` + 1 on average, before clamping at max_loops."""
    sigma: Positive = 0.5
    """Standard deviation of tau, the logarithm of the rate."""
    max_loops: PositiveInt = 128
    """Largest T; larger draws are clamped to it."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def grad_loops(self) -> int:
        """k with its default filled in, without the curriculum."""
        return self.num_grad_loops or default_grad_loops(self.mean)


@config
class UniformDepth(Drawn):
    """T drawn uniformly from min_loops, ..., max_loops."""

    kind: Literal["uniform"] = "uniform"
    min_loops: PositiveInt = 1
    """Smallest T."""
    max_loops: PositiveInt
    """Largest T."""

    def __post_init__(self) -> None:
        if self.min_loops > self.max_loops:
            raise ValueError(f"min_loops is {self.min_loops} but max_loops is {self.max_loops}; exchange the two.")
        _check(self)

    @property
    def mean(self) -> float:
        """The mean of T, without the curriculum."""
        return (self.min_loops + self.max_loops) / 2

    @property
    def grad_loops(self) -> int:
        """k with its default filled in, without the curriculum."""
        return self.num_grad_loops or default_grad_loops(self.mean)


@config
class ChoiceDepth(Drawn):
    """T drawn from an explicit set."""

    kind: Literal["choice"] = "choice"
    choices: PositiveInts
    """The values of T, ascending."""
    weights: tuple[Positive, ...] | None = None
    """One weight for each value, with any sum; null gives all the same weight."""

    def __post_init__(self) -> None:
        for value, following in pairwise(self.choices):
            if following <= value:
                raise ValueError(f"choices holds {value} before {following}; list each value once, in ascending order.")
        if self.weights is not None and len(self.weights) != len(self.choices):
            raise ValueError(
                f"weights has {len(self.weights)} entries but choices has {len(self.choices)}; give one for each."
            )
        _check(self)

    @property
    def min_loops(self) -> int:
        """The smallest T."""
        return self.choices[0]

    @property
    def max_loops(self) -> int:
        """The largest T."""
        return self.choices[-1]

    @property
    def mean(self) -> float:
        """The mean of T, without the curriculum."""
        weights = self.weights or (1.0,) * len(self.choices)
        return math.fsum(w * c for w, c in zip(weights, self.choices, strict=True)) / math.fsum(weights)

    @property
    def grad_loops(self) -> int:
        """k with its default filled in, without the curriculum."""
        return self.num_grad_loops or default_grad_loops(self.mean)


DrawnDepth = PoissonDepth | LogNormalPoissonDepth | UniformDepth | ChoiceDepth
DepthConfig = Annotated[FixedDepth | DrawnDepth, Field(discriminator="kind")]


def default_grad_loops(mean: float) -> int:
    """Return the default k: half the mean, rounded up."""
    return math.ceil(mean / 2)


def _check(depth: DrawnDepth) -> None:
    """Check the relations between fields that all drawn kinds share."""
    if depth.grad_loops > depth.max_loops:
        raise ValueError(
            f"num_grad_loops is {depth.grad_loops} but max_loops is {depth.max_loops}; "
            "no more loops can keep gradients than are run."
        )
    if depth.mean > depth.max_loops:
        raise ValueError(
            f"mean is {depth.mean:g} but max_loops is {depth.max_loops}; raise max_loops to twice the mean."
        )
    _check_damping(depth)
    if depth.ramp is not None:
        _check_ramp(depth, depth.ramp)
    _check_growth(depth)


def _check_damping(depth: FixedDepth | DrawnDepth) -> None:
    if depth.damping < 1 and depth.grad_loops == depth.max_loops:
        raise ValueError(
            f"damping is {depth.damping:g} but all of up to {depth.max_loops} loops keep gradients, so that no loop "
            "runs the map that evaluation runs; lower num_grad_loops or set damping=1."
        )


def _check_ramp(depth: DrawnDepth, ramp: Ramp) -> None:
    if ramp.start_mean is not None and ramp.start_mean > depth.mean:
        raise ValueError(
            f"ramp.start_mean is {ramp.start_mean:g} but the mean at the end of the ramp is {depth.mean:g}; "
            "a ramp only rises, so start lower."
        )
    smallest = depth.min_loops if isinstance(depth, UniformDepth | ChoiceDepth) else 0
    if ramp.start_mean is not None and ramp.start_mean < smallest:
        raise ValueError(
            f"ramp.start_mean is {ramp.start_mean:g} but the smallest T is {smallest}; start there or above."
        )
    if ramp.start_grad_loops is not None and ramp.start_grad_loops > depth.grad_loops:
        raise ValueError(
            f"ramp.start_grad_loops is {ramp.start_grad_loops} but the num_grad_loops at the end of the ramp is "
            f"{depth.grad_loops}; a ramp only rises, so start lower."
        )


def _check_growth(depth: DrawnDepth) -> None:
    earliest, mean = (depth.ramp.num_steps if depth.ramp else 0), depth.mean
    before = "ramp.num_steps is"
    for index, stage in enumerate(depth.growth):
        if stage.step < earliest or (index and stage.step == earliest):
            raise ValueError(
                f"growth[{index}].step is {stage.step} but {before} {earliest}; "
                "each stage begins after the one before it, and the first when the ramp is over."
            )
        if stage.mean < mean:
            raise ValueError(
                f"growth[{index}].mean is {stage.mean:g} but the mean before it is {mean:g}; the mean never falls."
            )
        for name, value in (("mean", stage.mean), ("num_grad_loops", stage.num_grad_loops or 0)):
            if value > depth.max_loops:
                raise ValueError(
                    f"growth[{index}].{name} is {value:g} but max_loops is {depth.max_loops}; "
                    "no more loops are run than that."
                )
        earliest, mean, before = stage.step, stage.mean, f"growth[{index}].step is"
