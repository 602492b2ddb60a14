"""What a run would need and how fast it would go on given devices: an estimate from its configuration alone."""

from dataclasses import dataclass

from mythos.account.communication import Traffic, communication
from mythos.account.estimate import Memory, cheapest_remat
from mythos.account.flops import training_flops
from mythos.account.parameters import count_parameters
from mythos.account.peak import Device, named_device
from mythos.account.speed import StepSeconds, default_efficiency, step_seconds
from mythos.config.parallel import ParallelConfig
from mythos.config.run import RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One layout's estimate. Bytes and FLOPs are exact sums of a model of the run; seconds rest on assumptions."""

    device: Device
    memory_bytes: int
    """Of one device: ``parallel.memory_gb``, or what the table of devices says."""
    parallel: ParallelConfig
    """The run's, with ``remat=auto`` settled."""
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
    memory_gb = run.parallel.memory_gb
    memory_bytes = device.memory_bytes if memory_gb is None else int(memory_gb * 1e9)
    run, needed = cheapest_remat(run, memory_bytes, device.has_fused_experts)
    num_loops, num_grad_loops = run.depth.mean, float(run.depth.grad_loops)
    traffic = communication(run, device, num_loops, num_grad_loops)
    seconds = step_seconds(run, device, traffic, num_loops, num_grad_loops, efficiency)
    tokens_per_step = run.data.batch_size * run.data.seq_len
    flops = training_flops(run.model, run.data.seq_len, num_loops, num_grad_loops).total * tokens_per_step
    peak = device.peak_flops(run.parallel.precision) * run.cluster.world_size
    return Plan(
        device=device,
        memory_bytes=memory_bytes,
        parallel=run.parallel,
        world_size=run.cluster.world_size,
        num_parameters=count_parameters(run.model).total,
        memory=needed,
        traffic=tuple(traffic),
        num_loops=num_loops,
        num_grad_loops=num_grad_loops,
        seconds=seconds,
        efficiency=efficiency or default_efficiency(run, device),
        tokens_per_step=tokens_per_step,
        mfu=flops / seconds.total / peak,
    )
