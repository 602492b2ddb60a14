import part_pairs
import pytest
import torch
from helpers import MODELS, gradients, model_config, random_batch
from torch import Tensor

from mythos.config.loop_parts.film import FilmConfig
from mythos.config.parts import LoopConfig
from mythos.loop.part import LoopState
from mythos.model.init import initialize
from mythos.model.mythos import Mythos

FILM = LoopConfig(parts=(FilmConfig(),))
NUM_LOOPS = 6


def pair(name: str = "debug") -> tuple[Mythos, Mythos]:
    """A model with the part and one without, with the same random weights otherwise; four rows of tables."""
    return part_pairs.pair(FilmConfig(), name=name, max_loops=4)


def trained(model: Mythos) -> tuple[Tensor, dict[str, Tensor]]:
    output = model(random_batch(model.config, num_documents=2), NUM_LOOPS, 3, exits=(2, 5), noise_seed=1)
    output.nll_XBS.mean().backward()
    return output.nll_XBS.detach(), gradients(model)


@pytest.mark.parametrize("name", MODELS)
def test_zero_tables_are_the_model_without_the_part_bitwise(name: str) -> None:
    with_film, without = pair(name)
    with torch.no_grad():
        for parameter in with_film.core.parts.parameters():
            parameter.zero_()
    (ours, our_gradients), (theirs, their_gradients) = trained(with_film), trained(without)
    assert torch.equal(ours, theirs)
    assert our_gradients.keys() - their_gradients.keys() == {"core.parts.0.scale.weight", "core.parts.0.shift.weight"}
    assert all(torch.equal(our_gradients[key], gradient) for key, gradient in their_gradients.items())
    assert our_gradients["core.parts.0.shift.weight"][3].any()
    tokens_BS = random_batch(without.config).tokens_BS
    logits = [model.decode(tokens_BS, model.new_cache(NUM_LOOPS, None)) for model in (with_film, without)]
    assert torch.equal(*logits)


def test_tables_start_at_zero() -> None:
    model = Mythos(model_config(loop=FILM))
    initialize(model, model.config, seed=0)
    assert not any(parameter.any() for parameter in model.core.parts.parameters())
    assert {name: value.item() for name, value in model.core.parts[0].figures().items()} == {"scale": 0, "shift": 0}


@pytest.mark.parametrize("name", MODELS)
def test_random_tables_give_the_equation(name: str) -> None:
    """h_{t+1} = F((1 + g_t) h_t + b_t); loops beyond the tables read the last row."""
    with_film, without = pair(name)
    batch = random_batch(without.config, num_documents=2)
    scale_TD, shift_TD = (table.weight for table in (with_film.core.parts[0].scale, with_film.core.parts[0].shift))
    inputs = without._inputs(batch)
    h_BSD = torch.zeros_like(inputs.e_BSD)
    with torch.no_grad():
        for loop in range(NUM_LOOPS):
            row = min(loop, 3)
            modulated_BSD = (1 + scale_TD[row]) * h_BSD + shift_TD[row]
            state = LoopState(modulated_BSD, layer_carries=((),) * len(without.core.blocks))
            h_BSD = without.core.step(state, inputs._replace(loop=loop))[0].h_BSD
        assert torch.equal(with_film(batch, NUM_LOOPS).state_BSD, h_BSD)
        assert not torch.equal(without(batch, NUM_LOOPS).state_BSD, h_BSD)
    figures = with_film.core.parts[0].figures()
    assert figures["scale"].item() == pytest.approx(scale_TD.square().mean().sqrt().item(), rel=1e-6)
    assert figures["shift"].item() == pytest.approx(shift_TD.square().mean().sqrt().item(), rel=1e-6)
