"""Injection: how the state and the prelude's output meet in each loop."""

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from mythos.config.base import config
from mythos.config.part_spec import PartSpec, Runtime, nothing

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig

DECAY_EXPONENTS: Final = {"fp32": (1.0625 * 2**-20, 80.0), "bf16": (1.0625 * 2**-8, 80.0)}
"""Bounds of -log A in the diagonal injection, by the precision of the state; ``loop.injection`` clamps to them.

The smaller ones are a little above -log(1 - 2**-20), so that rounding cannot cross that bound, and -log(1 - 2**-8),
above which A h rounds to h in bf16. exp(-80) is still a normal fp32 number, so that A stays above zero.
"""

UpdateRule = Literal["inject_then_blocks", "parallel"]
"""``inject_then_blocks``: h' = u + R(u), u = inject(h, e).  ``parallel``: h' = u + R(norm(h + e)).
R is the residual change of the core's blocks."""


@config
class DiagonalInjection:
    """u = A h + G B e with A = exp(dt * -exp(a)), diagonal and inside (0, 1) by construction (Parcae)."""

    kind: Literal["diagonal"] = "diagonal"
    update_rule: UpdateRule = "inject_then_blocks"
    """``inject_then_blocks`` computes h' = u + R(u), ``parallel`` h' = u + R(norm(h + e)), R the blocks' change."""
    initial_decay: Annotated[float, Field(gt=0, lt=1)] = 0.4472135955
    """A at the start; the default is sqrt(1/5)."""
    discretization: Literal["euler", "zoh"] = "euler"
    """Input gain G: ``euler`` dt, ``zoh`` (exact zero-order hold) (1 - A) / exp(a)."""


@config
class LinearInjection:
    """u = W [h; e], unconstrained (Huginn's adapter); starts as a diagonal injection would."""

    kind: Literal["linear"] = "linear"
    update_rule: UpdateRule = "inject_then_blocks"
    """``inject_then_blocks`` computes h' = u + R(u), ``parallel`` h' = u + R(norm(h + e)), R the blocks' change."""
    initial_decay: Annotated[float, Field(gt=0, lt=1)] = 0.4472135955
    """Weight of h in u at the start; the default is sqrt(1/5)."""


@config
class AdditiveInjection:
    """u = h + e: marginally stable, and at one loop from a zero state the plain stack of layers."""

    kind: Literal["additive"] = "additive"
    update_rule: UpdateRule = "inject_then_blocks"
    """``inject_then_blocks`` computes h' = u + R(u), ``parallel`` h' = u + R(norm(h + e)), R the blocks' change."""


InjectionConfig = Annotated[DiagonalInjection | LinearInjection | AdditiveInjection, Field(discriminator="kind")]


def _saved_by_diagonal(part: DiagonalInjection, model: "ModelConfig", runtime: Runtime) -> int:
    """State and written input."""
    state, operand = runtime.state_width * model.dim, runtime.width * model.dim
    if runtime.compiled:
        return state + 2 * operand
    return 2 * state + (operand if runtime.is_cast else 0)


INJECTIONS: Final = {
    "diagonal": PartSpec(
        config=DiagonalInjection,
        build="mythos.loop.injection:Diagonal",
        family="injection",
        shapes=lambda part, model: {
            "log_rate": (model.dim,),
            "dt_bias": (model.dim,),
            "input_matrix": (model.dim, model.dim),
        },
        initial_values={
            "log_rate": "zeros",
            "dt_bias": "mythos.loop.injection:initialize_dt_bias",
            "input_matrix": "identity",
        },
        optimizer_group={"log_rate": "other", "dt_bias": "other", "input_matrix": "other"},
        fp32=("log_rate", "dt_bias"),
        flops=lambda part, model, seq_len: 2 * model.dim**2,
        saved_activations=_saved_by_diagonal,
        carry_elements=nothing,
        cached_elements=nothing,
        is_repeatable=False,
    ),
    "linear": PartSpec(
        config=LinearInjection,
        build="mythos.loop.injection:Linear",
        family="injection",
        shapes=lambda part, model: {"matrix": (model.dim, 2 * model.dim)},
        initial_values={"matrix": "mythos.loop.injection:initialize_adapter"},
        optimizer_group={"matrix": "other"},
        fp32=(),
        flops=lambda part, model, seq_len: 4 * model.dim**2,
        saved_activations=lambda part, model, runtime: 2 * runtime.width * model.dim,  # both operands, side by side
        carry_elements=nothing,
        cached_elements=nothing,
        is_repeatable=False,
    ),
    "additive": PartSpec(
        config=AdditiveInjection,
        build="mythos.loop.injection:Additive",
        family="injection",
        shapes=lambda part, model: {},
        initial_values={},
        optimizer_group={},
        fp32=(),
        flops=nothing,
        saved_activations=nothing,
        carry_elements=nothing,
        cached_elements=nothing,
        is_repeatable=False,
    ),
}
"""By ``model.injection.kind``."""
