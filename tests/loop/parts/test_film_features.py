"""FiLM by features of the loop: its equation for t, and for t / T and 1 / T in training, growth and decoding."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import model_config, random_batch, random_model, relative_error
from torch import Tensor

from mythos.config.loop_parts.film_features import FilmFeaturesConfig
from mythos.config.parts import LoopConfig
from mythos.loop.growth import jacobian_growth
from mythos.loop.part import LoopState
from mythos.model.mythos import Mythos
from mythos.types import Regularizers, take_rows

NUM_LOOPS = 5


def pair(config: FilmFeaturesConfig) -> tuple[Mythos, Mythos]:
    """A model with the part and one without, with the same random weights otherwise."""
    with_part = random_model(model_config("debug", loop=LoopConfig(parts=(config,))))
    without = Mythos(replace(with_part.config, loop=LoopConfig()))
    shared = {key: value for key, value in with_part.state_dict().items() if not key.startswith("core.parts.")}
    without.load_state_dict(shared)
    return with_part, without


def features_of_index(loop: int, num_loops: int) -> list[float]:
    angles = [loop * 100 ** (-index / 3) for index in range(3)]
    return [*map(math.sin, angles), *map(math.cos, angles), 1.0]


def features_of_fraction(loop: int, num_loops: int) -> list[float]:
    angles = [math.pi * index * value for value in (loop / num_loops, 1 / num_loops) for index in (1, 2, 3)]
    return [*map(math.sin, angles), *map(math.cos, angles), 1.0]


FEATURES = {"index": features_of_index, "fraction": features_of_fraction}
each_kind = pytest.mark.parametrize("features", FEATURES)


@each_kind
@torch.no_grad()
def test_random_weights_give_the_equation(features: str) -> None:
    model, without = pair(FilmFeaturesConfig(features=features, num_frequencies=3))
    batch = random_batch(without.config, num_documents=2)
    weight_EF = model.core.parts[0].rows.weight
    inputs = without._inputs(batch)
    h_BSD = torch.zeros_like(inputs.e_BSD)
    for loop in range(NUM_LOOPS):
        phi_F = torch.tensor(FEATURES[features](loop, NUM_LOOPS))
        scale_D, shift_D = (weight_EF @ phi_F).chunk(2)
        state = LoopState((1 + scale_D) * h_BSD + shift_D, layer_carries=((),) * len(without.core.blocks))
        h_BSD = without.core.step(state, inputs._replace(loop=loop))[0].h_BSD
    assert relative_error(model(batch, NUM_LOOPS).state_BSD, h_BSD) < 1e-5
    assert relative_error(without(batch, NUM_LOOPS).state_BSD, h_BSD) > 1e-2
    scale, shift = (part.square().mean().sqrt().item() for part in weight_EF.chunk(2))
    assert model.core.parts[0].figures()["scale"].item() == pytest.approx(scale, rel=1e-6)
    assert model.core.parts[0].figures()["shift"].item() == pytest.approx(shift, rel=1e-6)


@torch.no_grad()
def states(model: Mythos, num_loops: int) -> list[Tensor]:
    return model.unroll(random_batch(model.config), num_loops).states


def test_only_fractions_depend_on_the_number_of_loops() -> None:
    index, _ = pair(FilmFeaturesConfig(num_frequencies=3))
    fraction, _ = pair(FilmFeaturesConfig(features="fraction", num_frequencies=3))
    assert torch.equal(states(index, 2)[2], states(index, 4)[2])
    assert relative_error(states(fraction, 2)[2], states(fraction, 4)[2]) > 1e-3


@each_kind
@torch.no_grad()
def test_jacobian_growth_is_that_of_a_loop_after_each_sequences_own_last_one(features: str) -> None:
    model, _ = pair(FilmFeaturesConfig(features=features, num_frequencies=3))
    batch, loops_B = random_batch(model.config), np.array([2, 4, 3])
    one_iteration = Regularizers(num_power_iterations=1)
    found_B = model(batch, 4, loops_B=loops_B, regularizers=one_iteration).jacobian_growth_B
    for row, loops in enumerate(loops_B):
        alone = take_rows(batch, slice(row, row + 1))
        inputs, state = model._inputs(alone), model._start(model._inputs(alone))
        for loop in range(int(loops)):
            state, _ = model.core.step(state, inputs._replace(loop=loop, num_loops=int(loops)))
        direction_BSD = model.noise(0, alone.sample_ids_B, *state.h_BSD.shape[1:])
        at = inputs._replace(loop=int(loops), num_loops=int(loops))
        expected_B = jacobian_growth(model.core.step, state, at, 1, direction_BSD)
        assert found_B[row].item() == pytest.approx(expected_B.item(), rel=1e-3)


def test_fractions_of_sequences_of_their_own_depth_are_those_of_each_alone() -> None:
    model, _ = pair(FilmFeaturesConfig(features="fraction", num_frequencies=3))
    batch, loops_B = random_batch(model.config, num_documents=2), np.array([2, 5, 1])
    together_BS = model(batch, 5, loops_B=loops_B, noise_seed=1).nll_XBS[0]
    rows = [take_rows(batch, slice(row, row + 1)) for row in range(3)]
    alone = [model(row, int(num), noise_seed=1).nll_XBS[0] for row, num in zip(rows, loops_B, strict=True)]
    assert relative_error(together_BS, torch.cat(alone)) < 1e-6
