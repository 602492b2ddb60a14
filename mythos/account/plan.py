"""Estimate of the memory and speed of a run on given devices, from its configuration alone."""

from dataclasses import dataclass

from mythos.account.communication import Traffic, communication
from mythos.account.estimate import Memory, cheapest_remat
from mythos.account.flops import run_flops
from mythos.account.parameters import count_parameters
from mythos.account.peak import Device, named_device
from mythos.account.speed import StepSeconds, default_efficiency, step_seconds
from mythos.config.parallel import ParallelConfig
from mythos.config.run import RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Estimated memory, traffic and speed of one layout. Bytes and FLOPs are computed; seconds rest on assumptions."""

    device: Device
    memory_bytes: int
    """Memory of one device: ``parallel.memory_gb``, or the entry of the table of devices."""
    parallel: ParallelConfig
    """Configuration of the run, with ``remat=auto`` resolved."""
    world_size: int
    num_parameters: int
    memory: Memory
    traffic: tuple[Traffic, ...]
    """Traffic of each rank in one optimiser step."""
    num_loops: float
    """Mean number of loops to which FLOPs, traffic and seconds refer."""
    num_grad_loops: float
    """Mean number of loops with gradients."""
    seconds: StepSeconds
    efficiency: float
    """Share of the peak that forward and backward are assumed to reach."""
    tokens_per_step: int
    mfu: float
    """Useful FLOPs, without recomputation, over the peak."""

    @property
    def fits(self) -> bool:
        """Whether the device has enough memory, margin included."""
        return self.memory.total <= self.memory_bytes

    @property
    def tokens_per_second(self) -> float:
        """Throughput of all ranks together."""
        return self.tokens_per_step / self.seconds.total

    def days(self, num_tokens: float) -> float:
        """Days of uninterrupted training on this many tokens."""
        return num_tokens / self.tokens_per_second / 86_400

    def device_hours(self, num_tokens: float) -> float:
        """Hours of all devices together for this many tokens."""
        return 24 * self.days(num_tokens) * self.world_size


def plan(run: RunConfig, device: Device | str, efficiency: float | None = None) -> MemoryPlan:
    """Estimate memory, traffic and speed of ``run`` on ``cluster.world_size`` devices.

    Args:
        device: a device, or its name, such as ``H100`` or the name that torch reports.
        efficiency: share of the device's peak that forward and backward reach; None takes ``default_efficiency``.

    Raises:
        ConfigError: the name has no entry in the table of ``mythos.account.peak``.
    """
    device = named_device(device) if isinstance(device, str) else device
    memory_gb = run.parallel.memory_gb
    memory_bytes = device.memory_bytes if memory_gb is None else int(memory_gb * 1e9)
    run, estimate = cheapest_remat(run, memory_bytes, device.has_fused_experts)
    num_loops, num_grad_loops = run.depth.mean, float(run.depth.grad_loops)
    traffic = communication(run, device, num_loops, num_grad_loops)
    seconds = step_seconds(run, device, traffic, num_loops, num_grad_loops, efficiency)
    tokens_per_step = run.data.batch_size * run.data.seq_len
    flops = run_flops(run, num_loops, num_grad_loops).total * tokens_per_step
    peak = device.peak_flops(run.parallel.precision) * run.cluster.world_size
    return MemoryPlan(
        device=device,
        memory_bytes=memory_bytes,
        parallel=run.parallel,
        world_size=run.cluster.world_size,
        num_parameters=count_parameters(run.model, run.halting).total,
        memory=estimate,
        traffic=tuple(traffic),
        num_loops=num_loops,
        num_grad_loops=num_grad_loops,
        seconds=seconds,
        efficiency=efficiency or default_efficiency(run, device),
        tokens_per_step=tokens_per_step,
        mfu=flops / seconds.total / peak,
    )
