"""Bytes of a training state without activations: of the whole state, and of one rank's share."""

import math
from dataclasses import dataclass

from mythos.account.parameters import block_shapes, count_parameters, num_matrix_elements
from mythos.config.base import FP32_BYTES
from mythos.config.halting import HaltingConfig
from mythos.config.model import ModelConfig, MoEConfig
from mythos.config.optim import AdamWConfig, ForeignOptimConfig, MuonAdamWConfig, OptimConfig
from mythos.config.parallel import DeepSpeedParallel, ParallelConfig, shares_weights

_BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default ``reduce_bucket_size``."""
LIVE_ELEMENTS = 1_000_000_000
"""DeepSpeed's default ``stage3_max_live_parameters``."""
_MUON_BATCH_ELEMENTS = 2**26
"""``MAX_BATCH_ELEMENTS`` of ``mythos/optim/muon_adamw.py`` on CUDA."""
_MUON_BYTES = 12
"""Measured for each element of a batch (docs/optimizer.md: 0.75 GiB for 2^26)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateBytes:
    """Bytes of a training state on all devices together."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Bytes of weights, gradients and optimiser."""
        return self.weights + self.gradients + self.optimizer


def state_bytes(model: ModelConfig, optim: OptimConfig, halting: HaltingConfig | None = None) -> StateBytes:
    """Count the bytes of weights, gradients and optimiser moments: two for each parameter in AdamW, one in Muon."""
    num_parameters = count_parameters(model, halting).total
    match optim:
        case AdamWConfig():
            num_moments = 2 * num_parameters
        case MuonAdamWConfig():
            num_moments = 2 * num_parameters - num_hidden_matrix_elements(model)
        case ForeignOptimConfig():
            num_moments = optim.num_moments * num_parameters
    return StateBytes(
        weights=FP32_BYTES * num_parameters,
        gradients=FP32_BYTES * num_parameters,
        optimizer=FP32_BYTES * num_moments,
    )


def num_hidden_matrix_elements(model: ModelConfig) -> int:
    """Number of parameters in the matrices of the blocks, without routers."""
    dense_block = num_matrix_elements(block_shapes(model, model.ffn))
    core_shapes = block_shapes(model, model.core_ffn)
    core_shapes.pop("router.gate.weight", None)
    num_dense_blocks = model.num_prelude_layers + model.num_coda_layers
    return num_dense_blocks * dense_block + model.num_core_layers * num_matrix_elements(core_shapes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Elements:
    """Numbers of parameters that one rank holds and updates."""

    dense: int
    """Everything but routed experts."""
    experts: int
    """The rank's own share of the routed experts."""
    dense_slice: int
    """The part of ``dense`` that this rank updates under ZeRO."""
    expert_slice: int

    @property
    def local(self) -> int:
        """Parameters of the model that this rank runs."""
        return self.dense + self.experts

    @property
    def slice(self) -> int:
        """Parameters that this rank updates."""
        return self.dense_slice + self.expert_slice


@dataclass(frozen=True, kw_only=True, slots=True)
class RankBytes:
    """Bytes of one rank's training state."""

    weights: int
    """In the precision of the forward; under ZeRO 3 this rank's slice of them."""
    gradients: int
    master_weights: int
    """The optimiser's own fp32 copy of what it updates; none without ZeRO, where it updates the weights themselves."""
    moments: int
    gathered: int
    """Gathered weights of the layers in use, ZeRO 3."""
    buckets: int
    """Communication buckets of gradients during the backward, and unsharded gradient accumulators under ZeRO 2."""
    optimizer_step: int
    """Temporary bytes of the optimiser's step, after activations and buckets are freed."""
    host: int
    """Host memory of what ``offload_optimizer`` moves there."""

    @property
    def standing(self) -> int:
        """Bytes that persist between steps."""
        return self.weights + self.gradients + self.master_weights + self.moments


def rank_elements(
    model: ModelConfig, parallel: ParallelConfig, world_size: int, halting: HaltingConfig | None = None
) -> Elements:
    """Count the parameters that a rank holds, and those that it updates."""
    ep_size = parallel.ep_size if isinstance(parallel, DeepSpeedParallel) else 1
    num_experts = num_expert_elements(model)
    dense, experts = count_parameters(model, halting).total - num_experts, num_experts // ep_size
    if not isinstance(parallel, DeepSpeedParallel) or parallel.zero_stage == 0:
        return Elements(dense=dense, experts=experts, dense_slice=dense, expert_slice=experts)
    return Elements(
        dense=dense,
        experts=experts,
        dense_slice=math.ceil(dense / world_size),
        expert_slice=math.ceil(experts / (world_size // ep_size)),
    )


def rank_bytes(
    model: ModelConfig,
    optim: OptimConfig,
    parallel: ParallelConfig,
    world_size: int,
    halting: HaltingConfig | None = None,
) -> RankBytes:
    """Count one rank's state under its ZeRO stage (arXiv 1910.02054), expert parallelism, precision and offloading."""
    elements = rank_elements(model, parallel, world_size, halting)
    if not isinstance(parallel, DeepSpeedParallel) or parallel.zero_stage == 0:
        in_buckets = min(_BUCKET_ELEMENTS, elements.local) if isinstance(parallel, DeepSpeedParallel) else 0
        return RankBytes(
            weights=FP32_BYTES * elements.local,
            gradients=FP32_BYTES * elements.local,
            master_weights=0,
            moments=FP32_BYTES * _num_moments(model, optim, elements),
            gathered=0,
            buckets=0,
            optimizer_step=max(_muon_bytes(model, optim, elements), FP32_BYTES * in_buckets),
            host=0,
        )
    stage, width = parallel.zero_stage, 2 if parallel.precision == "bf16_weights" else FP32_BYTES
    master, moments = FP32_BYTES * elements.slice, 2 * FP32_BYTES * elements.slice
    is_offloaded = parallel.offload_optimizer
    bucket = int(parallel.extra.get("reduce_bucket_size", _BUCKET_ELEMENTS))
    num_buckets = 2 if parallel.overlap_communication and stage < 3 else 1
    accumulates = stage == 2 and shares_weights(parallel) and width == FP32_BYTES
    accumulators = FP32_BYTES * elements.local if accumulates else 0
    live = max(largest_module(model, elements), int(parallel.extra.get("stage3_max_live_parameters", LIVE_ELEMENTS)))
    return RankBytes(
        weights=width * (elements.slice if stage == 3 else elements.local),
        gradients=FP32_BYTES * (elements.local if stage == 1 else elements.slice),
        master_weights=0 if is_offloaded else master,
        moments=0 if is_offloaded else moments,
        gathered=width * min(elements.local, live) if stage == 3 else 0,
        buckets=width * bucket * num_buckets + accumulators,
        optimizer_step=FP32_BYTES * elements.slice if not is_offloaded else 0,
        host=master + moments + FP32_BYTES * elements.slice if is_offloaded else 0,
    )


def num_expert_elements(model: ModelConfig) -> int:
    """Number of parameters in all routed experts."""
    core = model.core_ffn
    return (
        3 * model.num_core_layers * core.num_experts * core.hidden_dim * model.dim if isinstance(core, MoEConfig) else 0
    )


def largest_module(model: ModelConfig, elements: Elements) -> int:
    """Number of parameters that ZeRO 3 gathers at one time: the embedding, or one layer's experts on one rank."""
    return max(model.vocab_size * model.dim, elements.experts // model.num_core_layers)


def _num_moments(model: ModelConfig, optim: OptimConfig, elements: Elements) -> int:
    """Number of moments: two for each parameter in AdamW, one in Muon."""
    match optim:
        case AdamWConfig():
            return 2 * elements.local
        case ForeignOptimConfig():
            return optim.num_moments * elements.local
        case MuonAdamWConfig():
            return (
                2 * elements.local - (num_hidden_matrix_elements(model) - num_expert_elements(model)) - elements.experts
            )


def _muon_bytes(model: ModelConfig, optim: OptimConfig, elements: Elements) -> int:
    if not isinstance(optim, MuonAdamWConfig):
        return 0
    hidden = num_hidden_matrix_elements(model) - num_expert_elements(model) + elements.experts
    return _MUON_BYTES * min(hidden, _MUON_BATCH_ELEMENTS)
