"""The optimiser and its hyper-parameters."""

from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import NonNegative, Positive, PositiveInt, config

Beta = Annotated[float, Field(ge=0, lt=1)]


@config
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) for every parameter."""

    kind: Literal["adamw"] = "adamw"
    lr: Positive
    beta1: Beta = 0.9
    beta2: Beta = 0.95
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.1
    """On matrices only; norms, injection, router and embedding are never decayed."""
    clip_norm: Positive | None = 0.5
    """Largest global gradient norm; null leaves gradients alone."""


@config
class MuonAdamWConfig:
    """Muon for hidden matrices (expert by expert), AdamW for everything else."""

    kind: Literal["muon_adamw"] = "muon_adamw"
    lr: Positive
    """Learning rate of the AdamW part."""
    muon_lr: Positive
    """Learning rate of the Muon part."""
    beta1: Beta = 0.9
    beta2: Beta = 0.95
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    """Decoupled decay of the Muon matrices; the AdamW part is not decayed."""
    muon_momentum: Beta = 0.95
    num_newton_schulz_steps: PositiveInt = 5
    clip_norm: Positive | None = 0.5
    """Largest global gradient norm; null leaves gradients alone."""


OptimConfig = Annotated[AdamWConfig | MuonAdamWConfig, Field(discriminator="kind")]
