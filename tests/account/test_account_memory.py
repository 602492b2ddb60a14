"""Bytes of a training state."""

from mythos.account.memory import state_bytes
from mythos.config.optim import AdamWConfig, ForeignOptimConfig, MuonAdamWConfig

NUM_PARAMETERS = 3648
"""Parameters of the tiny model; counted by hand in test_parameters."""


def test_adamw_keeps_two_moments_for_each_parameter(tiny_model):
    state = state_bytes(tiny_model(), AdamWConfig(lr=1e-3))
    assert (state.weights, state.gradients, state.optimizer) == (
        4 * NUM_PARAMETERS,
        4 * NUM_PARAMETERS,
        8 * NUM_PARAMETERS,
    )
    assert state.total == 16 * NUM_PARAMETERS


def test_muon_saves_one_moment_of_the_blocks_matrices_but_not_of_the_router(tiny_model):
    dense_block, core_block = 192 + 3 * 8 * 12, 192 + 4 * 3 * 64 + 3 * 64
    state = state_bytes(tiny_model(), MuonAdamWConfig(lr=1e-3, muon_lr=1e-2))
    assert state.optimizer == 8 * NUM_PARAMETERS - 4 * (2 * dense_block + 2 * core_block)


def test_a_foreign_optimiser_keeps_as_many_moments_as_it_states(tiny_model):
    state = state_bytes(tiny_model(), ForeignOptimConfig(name="lion", lr=1e-3, num_moments=1))
    assert state.optimizer == 4 * NUM_PARAMETERS
