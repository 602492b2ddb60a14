"""How many times the core runs in a step (T), and how many of the last passes keep gradients (k)."""

import math
from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import Positive, PositiveInt, config


@config
class FixedDepth:
    """The same T in every step."""

    kind: Literal["fixed"] = "fixed"
    num_loops: PositiveInt
    num_grad_loops: PositiveInt | None = None
    """k; null keeps the gradients of all passes."""

    def __post_init__(self) -> None:
        if self.num_grad_loops is not None and self.num_grad_loops > self.num_loops:
            raise ValueError(
                f"num_grad_loops is {self.num_grad_loops} but num_loops is {self.num_loops}; "
                "no more passes can keep gradients than are run."
            )

    @property
    def mean(self) -> float:
        """The mean number of passes."""
        return float(self.num_loops)

    @property
    def grad_loops(self) -> int:
        """k with its default filled in."""
        return self.num_grad_loops or self.num_loops


@config
class PoissonDepth:
    """T drawn from a Poisson distribution, held inside [1, max_loops]; k = min(T, num_grad_loops) (Parcae)."""

    kind: Literal["poisson"] = "poisson"
    mean: Positive
    """Mean of the Poisson distribution before it is held inside its bounds."""
    num_grad_loops: PositiveInt | None = None
    """Most passes that keep gradients; null means half the mean, rounded up."""
    max_loops: PositiveInt = 32

    def __post_init__(self) -> None:
        if self.grad_loops > self.max_loops:
            raise ValueError(
                f"num_grad_loops is {self.grad_loops} but max_loops is {self.max_loops}; "
                "no more passes can keep gradients than are run."
            )
        if self.mean > self.max_loops:
            raise ValueError(
                f"mean is {self.mean:g} but max_loops is {self.max_loops}; raise max_loops to twice the mean."
            )

    @property
    def grad_loops(self) -> int:
        """k with its default filled in."""
        return self.num_grad_loops or math.ceil(self.mean / 2)


DepthConfig = Annotated[FixedDepth | PoissonDepth, Field(discriminator="kind")]
