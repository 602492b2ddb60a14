"""Bytes on the fullest rank of a run, tensors and process overhead, and the choice of ``remat`` that fits."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from mythos.account.activations import activation_bytes
from mythos.account.memory import rank_bytes
from mythos.account.saved import Runtime
from mythos.config.depth import FixedDepth, default_grad_loops
from mythos.config.model import MoEConfig
from mythos.config.parallel import DeepSpeedParallel, shares_weights
from mythos.config.run import RunConfig

MARGIN: Final = 0.10
"""Share of the estimated tensors that is kept free: the error that the estimate may have (docs/planning.md)."""
SLACK: Final = 0.05
"""Share of all tensors that the allocator holds and cannot use, an assumption."""
CONTEXT_BYTES: Final = 700 * 2**20
"""CUDA context, loaded kernels and workspaces of one process, an assumption."""
NCCL_BYTES: Final = 2**30
"""Buffers of NCCL's communicators with several ranks, an assumption."""
EXPERT_SKEW: Final = 1.25
"""Ratio of the rows that the fullest rank's experts receive to the mean, with ep_size > 1, an assumption."""
_FUSED_WIDTH = 64
"""The experts' kernels accept widths that are multiples of this (``mythos.moe.kernels.WIDTH``)."""
_BLOCK = 128
"""Document masks are block masks for lengths that are multiples of this (``mythos.layers.mask.BLOCK``)."""

Policy = tuple[Literal["none", "block", "loop"], bool]
POLICIES: Final[tuple[Policy, ...]] = (("none", False), ("block", False), ("loop", False), ("loop", True))
"""``remat`` and ``offload_states``, the cheapest first: recompute nothing; each block; each loop and its injection;
each loop, with states offloaded to the host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on the fullest rank's device, at the two moments at which the peak can occur."""

    weights: int
    gradients: int
    master_weights: int
    """The optimiser's own fp32 copies."""
    moments: int
    gathered: int
    """Gathered weights of the layers in use, ZeRO 3."""
    buckets: int
    """Communication buffers of gradients, during the backward."""
    activations: int
    """Peak of forward and backward of one micro-batch, with the largest k of the run."""
    optimizer_step: int
    """Temporary bytes of the update, after activations and buckets are freed."""
    context: int
    """CUDA context, NCCL, and what the allocator cannot use."""
    host: int
    """Host memory of each rank: an offloaded optimiser, offloaded states."""

    @property
    def standing(self) -> int:
        """Bytes of tensors that persist between steps."""
        return self.weights + self.gradients + self.master_weights + self.moments

    @property
    def allocated(self) -> int:
        """Bytes of tensors at the peak; comparable with ``torch.cuda.max_memory_allocated``."""
        return self.standing + max(self.gathered + self.buckets + self.activations, self.optimizer_step)

    @property
    def total(self) -> int:
        """Bytes that the device must have: tensors, the margin of the estimate, and the context."""
        return int(self.allocated * (1 + MARGIN)) + self.context


def memory(run: RunConfig, has_fused_experts: bool) -> Memory:
    """Estimate the bytes on the fullest rank of a CUDA device.

    Args:
        has_fused_experts: whether the device runs the kernels of ``mythos/moe/kernels``.
    """
    state = rank_bytes(run.model, run.optim, run.parallel, run.cluster.world_size, run.halting)
    data, num_grad_loops = run.data, max_grad_loops(run)
    saved = activation_bytes(
        run.model,
        run.parallel,
        data.micro_batch_size,
        data.seq_len,
        mask_documents=data.mask_documents and not _masks_by_blocks(run),
        runtime=runtime(run, has_fused_experts),
        num_exits=int(run.num_exits(run.depth.max_loops)),
    )
    activations = int(saved.peak(num_grad_loops))
    tensors = state.standing + state.gathered + state.buckets + activations
    return Memory(
        weights=state.weights,
        gradients=state.gradients,
        master_weights=state.master_weights,
        moments=state.moments,
        gathered=state.gathered,
        buckets=state.buckets,
        activations=activations,
        optimizer_step=state.optimizer_step,
        context=CONTEXT_BYTES + int(SLACK * tensors) + (NCCL_BYTES if run.cluster.world_size > 1 else 0),
        host=state.host + num_grad_loops * saved.host_per_loop,
    )


def runtime(run: RunConfig, has_fused_experts: bool) -> Runtime:
    """Return the runtime of the model's operations on a CUDA device."""
    parallel, core = run.parallel, run.model.core_ffn
    zero = parallel if isinstance(parallel, DeepSpeedParallel) else None
    is_bf16 = parallel.precision != "fp32"
    is_fused = (
        is_bf16
        and has_fused_experts
        and isinstance(core, MoEConfig)
        and core.dispatch == "grouped"
        and run.model.dim % _FUSED_WIDTH == 0
        and core.hidden_dim % _FUSED_WIDTH == 0
    )
    return Runtime(
        width=2 if is_bf16 else 4,
        state_width=2 if parallel.state_precision == "bf16" else 4,
        casts_weights=parallel.precision == "bf16",
        is_cuda=True,
        compiled=parallel.compile,
        fused_experts=is_fused,
        shares_weights=shares_weights(parallel),
        ep_size=zero.ep_size if zero else 1,
        expert_skew=EXPERT_SKEW,
    )


def max_grad_loops(run: RunConfig) -> int:
    """Return the largest number of loops with gradients of any step, growth included."""
    depth = run.depth
    stages = () if isinstance(depth, FixedDepth) else depth.growth
    later = [stage.num_grad_loops or depth.num_grad_loops or default_grad_loops(stage.mean) for stage in stages]
    return min(depth.max_loops, max([depth.grad_loops, *later]))


def with_policy(run: RunConfig, policy: Policy) -> RunConfig:
    """Return the run with another ``remat`` and ``offload_states``."""
    remat, offload_states = policy
    return replace(run, parallel=replace(run.parallel, remat=remat, offload_states=offload_states))


def cheapest_remat(run: RunConfig, memory_bytes: int, has_fused_experts: bool) -> tuple[RunConfig, Memory]:
    """Return the run with the first of ``POLICIES`` that fits, and its memory; if none fits, with the one that needs
    least. A run without ``remat=auto`` is returned unchanged."""
    if run.parallel.remat != "auto":
        return run, memory(run, has_fused_experts)
    candidates = [with_policy(run, policy) for policy in POLICIES]
    estimates = [(candidate, memory(candidate, has_fused_experts)) for candidate in candidates]
    fitting = [pair for pair in estimates if pair[1].total <= memory_bytes]
    return fitting[0] if fitting else min(estimates, key=lambda pair: pair[1].total)


def _masks_by_blocks(run: RunConfig) -> bool:
    return run.parallel.precision != "fp32" and run.data.seq_len % _BLOCK == 0
