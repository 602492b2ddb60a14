"""Parameters that a valid configuration cuts from the gradient, so that they keep their initial values."""

import math
from collections.abc import Iterator

from mythos.config.halting import ActHalting, FixedHalting, PonderHalting
from mythos.config.injection import DECAY_EXPONENTS, DiagonalInjection
from mythos.config.model import MoEConfig
from mythos.config.run import RunConfig


def untrained(run: RunConfig) -> list[str]:
    """Return a sentence for each group of parameters that this run does not train, with what to set instead."""
    return [*_router(run), *_gate(run), *_decay(run)]


def _router(run: RunConfig) -> Iterator[str]:
    core = run.model.core_ffn
    if not isinstance(core, MoEConfig):
        return
    if core.num_experts == 1 and (core.normalize_weights or core.score == "softmax"):
        yield (
            "model.core_ffn.num_experts is 1: the weight of the only expert is always 1, so the likelihood gives the "
            "router no gradient; set more experts, or a dense core."
        )
    elif core.num_active == 1 and core.normalize_weights:
        yield (
            "model.core_ffn.num_active is 1 with normalize_weights=true: the weight of a token's expert is always 1, "
            "so the likelihood gives the router no gradient; set model.core_ffn.normalize_weights=false, or num_active "
            "to 2 or more."
        )


def _gate(run: RunConfig) -> Iterator[str]:
    halting = run.halting
    if isinstance(halting, FixedHalting):
        return
    if run.depth.max_loops == 1:
        yield (
            f"halting.kind is {halting.kind} but no step runs more than 1 loop: every token exits there, so the "
            "halting gate gets no gradient; set halting=fixed, or run more loops."
        )
    elif isinstance(halting, ActHalting) and halting.initial_probability >= 1 - halting.threshold:
        yield (
            f"halting.initial_probability is {halting.initial_probability:g} and halting.threshold is "
            f"{halting.threshold:g}: every token exits after its first loop with the weight 1, so the halting gate "
            f"gets no gradient; set halting.initial_probability below {1 - halting.threshold:g}."
        )
    if isinstance(halting, PonderHalting) and halting.train == "gate" and run.run.init_from is None:
        yield (
            "halting.train is gate but run.init_from is null: the language model is frozen at its random initial "
            "values; set run.init_from to the directory of a trained run."
        )


def _decay(run: RunConfig) -> Iterator[str]:
    injection = run.model.injection
    if not isinstance(injection, DiagonalInjection):
        return
    precision = run.parallel.state_precision
    smallest, largest = DECAY_EXPONENTS[precision]
    if not smallest < -math.log(injection.initial_decay) < largest:
        yield (
            f"model.injection.initial_decay is {injection.initial_decay}, outside the bounds "
            f"{math.exp(-largest):.3g} and {math.exp(-smallest):.7f} of the decay of a state in {precision}: it is "
            "clamped there, so the rates get no gradient; choose a value between them."
        )
