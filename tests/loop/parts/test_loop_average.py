"""The average over the states of earlier loops: its equation, and its slots."""

import pytest
import torch
from helpers import MODELS, random_batch, relative_error
from part_pairs import NUM_LOOPS, pair, state_and_gradients, unrolled
from torch import Tensor

from mythos.config.loop_parts.loop_average import LoopAverageConfig

KEY = "core.parts.0.weights.weight"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_slots", [1, 3, 8])
def test_each_loop_reads_the_average_over_the_last_states(name: str, num_slots: int) -> None:
    """Loops beyond the table read its last row."""
    model, without = pair(LoopAverageConfig(num_slots=num_slots), name=name, max_loops=4)
    table_TN = model.core.parts[0].weights.weight
    states: list[Tensor] = []

    def equation(loop: int, h_BSD: Tensor, e_BSD: Tensor, rest) -> Tensor:
        states.append(h_BSD)
        row = table_TN[min(loop, 3)]
        terms = [row[age] * states[-1 - age] for age in range(1, min(num_slots, loop) + 1)]
        return rest((1 + row[0]) * h_BSD + sum(terms))

    batch = random_batch(without.config, num_documents=2)
    expected = unrolled(without, equation, torch.zeros(3, 13, 32))
    expected, of_rest = state_and_gradients(without, expected)
    of_rest[KEY] = table_TN.grad.clone()
    table_TN.grad = None
    found, of_all = state_and_gradients(model, model(batch, NUM_LOOPS).state_BSD)
    assert relative_error(found, expected) < 1e-5
    for key, gradient in of_rest.items():
        assert relative_error(of_all[key], gradient) < 1e-4, key


def test_slots_hold_the_states_themselves() -> None:
    model, _ = pair(LoopAverageConfig(num_slots=3))
    inputs = model._inputs(random_batch(model.config))
    state = model._start(inputs)
    assert len({id(slot) for slot in state.carries[0]}) == 1
    states = []
    for loop in range(5):
        states.append(state.h_BSD)
        state = model.core.step(state, inputs._replace(loop=loop))[0]
        assert all(slot is seen for slot, seen in zip(state.carries[0], reversed(states), strict=False))
    assert len(state.carries[0]) == 3
