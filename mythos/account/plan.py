"""What a run would need and how fast it would go on given devices: an estimate from its configuration alone."""

from dataclasses import dataclass

from mythos.account.activations import activation_bytes
from mythos.account.communication import Traffic, communication
from mythos.account.flops import training_flops
from mythos.account.kept import Runtime
from mythos.account.memory import rank_bytes
from mythos.account.parameters import count_parameters
from mythos.account.peak import Device, named_device
from mythos.account.speed import StepSeconds, default_efficiency, step_seconds
from mythos.config.depth import FixedDepth
from mythos.config.halting import PonderHalting
from mythos.config.model import MoEConfig
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig

MARGIN = 0.10
"""Share of the estimated tensors that is kept free: how far off the estimate may be (docs/planning.md)."""
SLACK = 0.05
"""Of all tensors: what the allocator holds and cannot use, an assumption."""
CONTEXT_BYTES = 700 * 2**20
"""CUDA context, loaded kernels and workspaces of one process, an assumption."""
NCCL_BYTES = 2**30
"""Buffers of NCCL's communicators, with several ranks, an assumption."""
EXPERT_SKEW = 1.25
"""Rows that the fullest rank's experts are taken to receive over the mean, with ep_size > 1, an assumption."""
_FUSED_WIDTH = 64
"""Widths that the experts' kernels take are multiples of this (``mythos.moe.kernels.WIDTH``)."""
_BLOCK = 128
"""Lengths whose document masks are kept as blocks are multiples of this (``mythos.layers.mask.BLOCK``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on the fullest rank's device, at the two moments that can be the fullest."""

    weights: int
    gradients: int
    master_weights: int
    """The optimiser's own fp32 copies."""
    moments: int
    gathered: int
    """Whole weights of layers in use, ZeRO 3."""
    buckets: int
    """For gradients on their way, during the backward."""
    activations: int
    """Peak of forward and backward of one micro-batch, with the deepest k of the run."""
    optimizer_step: int
    """For a moment during the update, when activations and buckets are gone."""
    context: int
    """CUDA context, NCCL, and what the allocator cannot use."""
    host: int
    """In host memory, for each rank: an offloaded optimiser, offloaded states."""

    @property
    def standing(self) -> int:
        """Tensors between steps."""
        return self.weights + self.gradients + self.master_weights + self.moments

    @property
    def allocated(self) -> int:
        """Tensors at the fullest moment; what ``torch.cuda.max_memory_allocated`` is held against."""
        backward = self.gathered + self.buckets + self.activations
        return self.standing + max(backward, self.optimizer_step)

    @property
    def total(self) -> int:
        """What the device must have: tensors, the margin of the estimate, and what is not tensors."""
        return int(self.allocated * (1 + MARGIN)) + self.context


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One layout's estimate. Bytes and FLOPs are exact sums of a model of the run; seconds rest on assumptions."""

    device: Device
    memory_bytes: int
    """Of one device."""
    world_size: int
    num_parameters: int
    memory: Memory
    traffic: tuple[Traffic, ...]
    """What each rank sends in one optimiser step."""
    num_loops: float
    """Mean T and k that FLOPs, traffic and seconds are for."""
    num_grad_loops: float
    seconds: StepSeconds
    efficiency: float
    """Assumed share of the peak in forward and backward."""
    tokens_per_step: int
    mfu: float
    """Useful FLOPs, recomputation not counted, over peak."""

    @property
    def fits(self) -> bool:
        """Whether the device has what is needed, margin included."""
        return self.memory.total <= self.memory_bytes

    @property
    def tokens_per_second(self) -> float:
        """Of all ranks together."""
        return self.tokens_per_step / self.seconds.total

    def days(self, num_tokens: float) -> float:
        """Days of training without a pause for this many tokens."""
        return num_tokens / self.tokens_per_second / 86_400


def plan(run: RunConfig, device: Device | str, efficiency: float | None = None) -> Plan:
    """Estimate memory, traffic and speed of ``run`` on ``cluster.world_size`` devices.

    Args:
        device: a device, or a name such as ``H100`` or what torch calls it.
        efficiency: of the device's peak in forward and backward; None takes ``default_efficiency``.

    Raises:
        ConfigError: the name is not in the table of ``mythos.account.peak``.
    """
    device = named_device(device) if isinstance(device, str) else device
    num_loops, num_grad_loops = run.depth.mean, float(run.depth.grad_loops)
    traffic = communication(run, device, num_loops, num_grad_loops)
    seconds = step_seconds(run, device, traffic, num_loops, num_grad_loops, efficiency)
    tokens_per_step = run.data.batch_size * run.data.seq_len
    flops = training_flops(run.model, run.data.seq_len, num_loops, num_grad_loops).total * tokens_per_step
    peak = device.peak_flops(run.parallel.precision) * run.cluster.world_size
    return Plan(
        device=device,
        memory_bytes=device.memory_bytes,
        world_size=run.cluster.world_size,
        num_parameters=count_parameters(run.model).total,
        memory=memory(run, device),
        traffic=tuple(traffic),
        num_loops=num_loops,
        num_grad_loops=num_grad_loops,
        seconds=seconds,
        efficiency=efficiency or default_efficiency(run),
        tokens_per_step=tokens_per_step,
        mfu=flops / seconds.total / peak,
    )


def memory(run: RunConfig, device: Device) -> Memory:
    """Bytes on the fullest rank."""
    state = rank_bytes(run.model, run.optim, run.parallel, run.cluster.world_size)
    data, num_grad_loops = run.data, most_grad_loops(run)
    activations = activation_bytes(
        run.model,
        run.parallel,
        data.micro_batch_size,
        data.seq_len,
        mask_documents=data.mask_documents and not _masks_by_blocks(run),
        runtime=runtime(run, device),
        num_exits=run.halting.num_exits if isinstance(run.halting, PonderHalting) else 1,
    )
    tensors = state.standing + state.gathered + state.buckets + int(activations.peak(num_grad_loops))
    return Memory(
        weights=state.weights,
        gradients=state.gradients,
        master_weights=state.master_weights,
        moments=state.moments,
        gathered=state.gathered,
        buckets=state.buckets,
        activations=int(activations.peak(num_grad_loops)),
        optimizer_step=state.optimizer_step,
        context=CONTEXT_BYTES + int(SLACK * tensors) + (NCCL_BYTES if run.cluster.world_size > 1 else 0),
        host=state.host + num_grad_loops * activations.host_per_pass,
    )


def runtime(run: RunConfig, device: Device) -> Runtime:
    """What runs the model's operations on this device."""
    parallel, core = run.parallel, run.model.core_ffn
    is_bf16 = parallel.precision != "fp32"
    zero = parallel if isinstance(parallel, DeepSpeedParallel) else None
    is_fused = (
        is_bf16
        and device.has_fused_experts
        and isinstance(core, MoEConfig)
        and core.dispatch == "grouped"
        and run.model.dim % _FUSED_WIDTH == 0
        and core.hidden_dim % _FUSED_WIDTH == 0
    )
    return Runtime(
        width=2 if is_bf16 else 4,
        casts_weights=parallel.precision == "bf16",
        is_cuda=True,
        compiled=parallel.compile,
        fused_experts=is_fused,
        shares_expert_copies=is_fused and (zero is None or zero.zero_stage < 3),
        ep_size=zero.ep_size if zero else 1,
        expert_skew=EXPERT_SKEW,
    )


def most_grad_loops(run: RunConfig) -> int:
    """The largest k that any step can have, growth included."""
    depth = run.depth
    stages = () if isinstance(depth, FixedDepth) else depth.growth
    later = [stage.num_grad_loops or -(-int(stage.mean) // 2) for stage in stages]
    return min(depth.max_loops, max([depth.grad_loops, *later]))


def _masks_by_blocks(run: RunConfig) -> bool:
    return run.parallel.precision != "fp32" and run.data.seq_len % _BLOCK == 0
