"""How the routers of a mixture of experts are kept balanced, beside any loss term."""

from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import Fraction, NonNegative, config


@config
class NoBalance:
    """The selection biases stay at zero."""

    kind: Literal["none"] = "none"


@config
class SignBalance:
    """After each step, the selection bias of each expert moves by a fixed rate towards the mean load.

    The move is the sign of (mean load - load), per loop and layer (Wang et al. 2024, arXiv 2408.15664).
    """

    kind: Literal["sign"] = "sign"
    rate: NonNegative = 1e-3
    """Size of the move; logits and scores of the router set its scale."""
    unused_loops: Literal["keep", "copy_last"] = "keep"
    """Biases of loops that a step did not run: ``keep`` them, or move them as those of the last loop that it ran."""

    def __post_init__(self) -> None:
        if self.rate == 0:
            raise ValueError(f"rate is {self.rate:g}, which balances nothing; set balance=none.")


@config
class QuantileBalance:
    """After each step, the selection bias of each expert moves to where K / E of the tokens would have selected it.

    The margins of selection are counted per loop and layer, over all micro-batches and ranks.
    """

    kind: Literal["quantile"] = "quantile"
    fraction: Fraction = 1.0
    """Part of the way that the bias moves in one step."""
    unused_loops: Literal["keep", "copy_last"] = "copy_last"
    """As for ``sign``; deep loops that few steps run do not become balanced by themselves."""

    def __post_init__(self) -> None:
        if self.fraction == 0:
            raise ValueError("fraction is 0, which balances nothing; set balance=none.")


BalanceConfig = Annotated[NoBalance | SignBalance | QuantileBalance, Field(discriminator="kind")]
