"""Device, precision, compilation, recomputation and sharding over ranks."""

from dataclasses import field
from typing import Annotated, Final, Literal

from pydantic import Field

from mythos.config.base import Positive, PositiveInt, config

EXTRA: Final[dict[str, type]] = {
    "allgather_bucket_size": int,
    "contiguous_gradients": bool,
    "reduce_bucket_size": int,
    "round_robin_gradients": bool,
    "stage3_max_live_parameters": int,
    "stage3_max_reuse_distance": int,
    "stage3_module_granularity_threshold": int,
    "stage3_param_persistence_threshold": int,
    "stage3_prefetch_bucket_size": int,
    "sub_group_size": int,
    "use_multi_rank_bucket_allreduce": bool,
}
"""Keys of DeepSpeed's ``zero_optimization`` that affect speed and memory and cannot change a result."""


@config
class ParallelBase:
    """Fields of every kind."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes the GPU if there is one."""
    compile: bool = False
    """Compile each block once; the loop around the core's blocks is never compiled."""
    remat: Literal["none", "loop", "block", "auto"] = "none"
    """What the core recomputes in the backward: nothing; each loop, of which only the state and the expert indices are
    saved; or each block. ``auto`` chooses at the start the cheapest one that fits the device."""
    state_precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the recurrent state and the residual stream; ``bf16`` halves its bytes and rounds in each layer."""
    share_weights: bool = True
    """On a GPU in ``bf16``, below ZeRO 3: all loops of a step read one bf16 copy of each matrix of the blocks and add
    to one fp32 gradient accumulator. Under ZeRO 2 the accumulators take the memory that sharded gradients save."""
    offload_states: bool = False
    """With ``remat=loop``, keep the states of the loops in host memory until the backward."""
    memory_gb: Positive | None = None
    """Memory of one device in 10^9 bytes, for ``remat=auto`` and ``mythos plan``; null asks the device."""

    def __post_init__(self) -> None:
        if self.offload_states and self.remat != "loop":
            raise ValueError(f"offload_states is true but remat is {self.remat}; only remat=loop saves states to move.")


@config
class SingleParallel(ParallelBase):
    """``single``: one process on one device."""

    kind: Literal["single"] = "single"
    precision: Literal["fp32", "bf16"] = "fp32"
    """``bf16`` keeps fp32 weights and computes matrix products in bfloat16 under autocast."""


@config
class DeepSpeedParallel(ParallelBase):
    """``deepspeed``: ranks that shard the batch, the optimiser's state (ZeRO, arXiv 1910.02054) and the experts."""

    kind: Literal["deepspeed"] = "deepspeed"
    precision: Literal["fp32", "bf16", "bf16_weights"] = "fp32"
    """``bf16`` as on one device; ``bf16_weights`` also holds the model in bfloat16, with fp32 weights, moments and
    gradients only in each rank's shard."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What is sharded: 0 nothing, 1 weights of the optimiser and moments, 2 also gradients, 3 also the model."""
    ep_size: PositiveInt = 1
    """Consecutive ranks that shard one set of experts; they lie on one node when it divides the node's devices."""
    offload_optimizer: bool = False
    """Keep the optimiser's weights and moments in host memory, and update there."""
    overlap_communication: bool = True
    """Reduce gradients while the backward still runs."""
    check_every: PositiveInt = 100
    """Optimiser steps between comparisons of the router bias over all ranks."""
    extra: dict[str, bool | int] = field(default_factory=dict)
    """Further keys of DeepSpeed's ``zero_optimization``: bucket sizes and thresholds."""

    def __post_init__(self) -> None:
        ParallelBase.__post_init__(self)
        for key, value in self.extra.items():
            if key not in EXTRA:
                raise ValueError(f"extra.{key}: not one of the keys that can be set here: {', '.join(EXTRA)}.")
            if type(value) is not EXTRA[key]:
                raise ValueError(f"extra.{key} is {value}, but it takes a value of type {EXTRA[key].__name__}.")
        if self.precision == "bf16_weights" and self.zero_stage < 2:
            raise ValueError(
                f"precision is bf16_weights but zero_stage is {self.zero_stage}, where gradients would add up in "
                "bfloat16; set zero_stage=2 or 3, or precision=bf16."
            )
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer is true but zero_stage is 0, which shards nothing; set zero_stage=1.")
        if self.compile and self.zero_stage == 3:
            raise ValueError(
                "compile is true but zero_stage is 3, which gathers and frees weights inside a block; set "
                "compile=false or zero_stage=2."
            )


ParallelConfig = Annotated[SingleParallel | DeepSpeedParallel, Field(discriminator="kind")]


def shares_weights(parallel: SingleParallel | DeepSpeedParallel) -> bool:
    """Whether all loops of a step share weight copies on a GPU: in 16 bits, and where each rank holds whole weights."""
    is_whole = not isinstance(parallel, DeepSpeedParallel) or parallel.zero_stage < 3
    return parallel.share_weights and is_whole and parallel.precision != "fp32"
