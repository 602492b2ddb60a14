"""Bytes that a training state takes in fp32, activations left out."""

from dataclasses import dataclass

from mythos.account.parameters import block_shapes, count_parameters, num_matrix_elements
from mythos.config.model import ModelConfig
from mythos.config.optim import AdamWConfig, MuonAdamWConfig, OptimConfig

_FP32_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class StateBytes:
    """Bytes of a training state on all devices together."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer


def state_bytes(model: ModelConfig, optim: OptimConfig) -> StateBytes:
    """Bytes of weights, gradients and optimiser moments: two a parameter in AdamW, one in Muon."""
    num_parameters = count_parameters(model).total
    match optim:
        case AdamWConfig():
            num_moments = 2 * num_parameters
        case MuonAdamWConfig():
            num_moments = 2 * num_parameters - num_hidden_matrix_elements(model)
    return StateBytes(
        weights=_FP32_BYTES * num_parameters,
        gradients=_FP32_BYTES * num_parameters,
        optimizer=_FP32_BYTES * num_moments,
    )


def num_hidden_matrix_elements(model: ModelConfig) -> int:
    """Number of parameters in the matrices of the blocks, routers left out."""
    dense_block = num_matrix_elements(block_shapes(model, model.ffn))
    core_shapes = block_shapes(model, model.core_ffn)
    core_shapes.pop("router.gate.weight", None)
    num_dense_blocks = model.num_prelude_layers + model.num_coda_layers
    return num_dense_blocks * dense_block + model.num_core_layers * num_matrix_elements(core_shapes)
