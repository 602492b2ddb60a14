"""The optimiser and its hyper-parameters."""

from dataclasses import field
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from mythos.config.base import Count, NonNegative, Positive, PositiveInt, config
from mythos.config.plugins import PluginName

OPTIMIZER_PLUGINS: Final = "mythos.optimizers"
"""Entry points of other packages' optimisers, called as ``optimizer(groups, **options)``."""

Beta = Annotated[float, Field(ge=0, lt=1)]


@config
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) for every parameter."""

    kind: Literal["adamw"] = "adamw"
    lr: Positive
    """Learning rate at its highest."""
    beta1: Beta = 0.9
    """Decay of the first moment, per step."""
    beta2: Beta = 0.95
    """Decay of the second moment, per step."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegative = 0.1
    """Decay of matrices only; norms, injection, router and embedding are never decayed."""
    clip_norm: Positive | None = 0.5
    """Largest global gradient norm; null disables clipping."""


@config
class MuonAdamWConfig:
    """Muon for hidden matrices (expert by expert), AdamW for everything else."""

    kind: Literal["muon_adamw"] = "muon_adamw"
    lr: Positive
    """Learning rate of the AdamW part."""
    muon_lr: Positive
    """Learning rate of the Muon part."""
    beta1: Beta = 0.9
    """Decay of the first moment, per step."""
    beta2: Beta = 0.95
    """Decay of the second moment, per step."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegative = 0.0
    """Decoupled decay of the Muon matrices; the AdamW part is not decayed."""
    muon_momentum: Beta = 0.95
    """Decay of Muon's momentum, per step."""
    num_newton_schulz_steps: PositiveInt = 5
    """Iterations of the orthogonalisation."""
    clip_norm: Positive | None = 0.5
    """Largest global gradient norm; null disables clipping."""


@config
class ForeignOptimConfig:
    """An optimiser of another installed package, for every parameter."""

    kind: Literal["foreign"] = "foreign"
    name: PluginName
    """Name of its entry point in ``mythos.optimizers``."""
    lr: Positive
    """Learning rate at its highest."""
    weight_decay: NonNegative = 0.0
    """Decay of matrices only; norms, injection, router and embedding are never decayed."""
    clip_norm: Positive | None = 0.5
    """Largest global gradient norm; null disables clipping."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of its constructor."""
    num_moments: Count = 2
    """fp32 values that it keeps for each parameter; ``mythos plan`` and ``mythos costs`` count them."""


OptimConfig = Annotated[AdamWConfig | MuonAdamWConfig | ForeignOptimConfig, Field(discriminator="kind")]
