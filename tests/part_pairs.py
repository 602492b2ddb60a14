"""A model with loop parts beside the same model without, and a naive loop that a test fills with an equation."""

from collections.abc import Callable
from dataclasses import replace

import torch
from helpers import gradients, model_config, random_batch, random_model
from torch import Tensor

from mythos.config.parts import LoopConfig, PartConfig
from mythos.loop.part import LoopState
from mythos.model.init import initialize
from mythos.model.mythos import Mythos

NUM_LOOPS, NUM_GRAD_LOOPS = 6, 4
Rest = Callable[[Tensor], Tensor]
Equation = Callable[[int, Tensor, Tensor, Rest], Tensor]
"""Function of the loop, h, e and F that returns the next state."""


def is_of_part(name: str) -> bool:
    """Whether a parameter belongs to a loop part or to its parts inside attention and beside the router."""
    return name.startswith("core.parts.") or ".attention.part." in name or ".router_part." in name


def pair(*parts: PartConfig, name: str = "debug", is_new: bool = False, **changes) -> tuple[Mythos, Mythos]:
    """A model with parts and one without, with the same random weights otherwise; new parts have initial values."""
    model = random_model(model_config(name, loop=LoopConfig(parts=parts), **changes))
    if is_new:
        start = Mythos(model.config)
        initialize(start, model.config, seed=3)
        values = {key: value for key, value in start.state_dict().items() if is_of_part(key)}
        model.load_state_dict(values, strict=False)
    without = Mythos(replace(model.config, loop=LoopConfig()))
    without.load_state_dict({key: value for key, value in model.state_dict().items() if not is_of_part(key)})
    return model, without


def trained(model: Mythos, **options) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses and gradients of a batch with documents, under truncated backpropagation."""
    model.zero_grad()
    batch = random_batch(model.config, num_documents=2)
    output = model(batch, NUM_LOOPS, NUM_GRAD_LOOPS, exits=(3, 5), noise_seed=1, **options)
    output.nll_XBS.mean().backward()
    return output.nll_XBS.detach(), gradients(model)


def unrolled(without: Mythos, equation: Equation, initial: Tensor, num_loops: int = NUM_LOOPS) -> Tensor:
    """The last state of a loop that is the equation, with gradients through all loops."""
    inputs = without._inputs(random_batch(without.config, num_documents=2))
    h_BSD = initial
    for loop in range(num_loops):

        def rest(u_BSD: Tensor, loop: int = loop) -> Tensor:
            state = LoopState(u_BSD, layer_carries=((),) * len(without.core.blocks))
            return without.core.step(state, inputs._replace(loop=loop))[0].h_BSD

        h_BSD = equation(loop, h_BSD, inputs.e_BSD, rest)
    return h_BSD


def state_and_gradients(model: Mythos, state_BSD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The state, and the gradients of a fixed random projection of it."""
    model.zero_grad()
    direction = torch.randn(state_BSD.shape, generator=torch.Generator().manual_seed(5))
    (state_BSD * direction).sum().backward()
    return state_BSD.detach(), gradients(model)
