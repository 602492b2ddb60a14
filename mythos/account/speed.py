"""Duration of an optimiser step: computation at an assumed rate, and communication that is not overlapped."""

from dataclasses import dataclass

from mythos.account.communication import Traffic
from mythos.account.estimate import runtime
from mythos.account.flops import loop_flops, outer_flops, run_flops
from mythos.account.memory import rank_elements
from mythos.account.parameters import block_shapes, ffn_shapes, num_matrix_elements
from mythos.account.peak import Device
from mythos.config.optim import MuonAdamWConfig
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig

DENSE_EFFICIENCY = 0.45
"""Share of the peak that forward and backward of a dense model reach in bf16. Published MFU on H100: OLMo-core 0.39 to
0.41 at 1B and 0.47 at 7B; torchtitan 0.33 to 0.39 at 8B. These include the parts that are counted separately here."""
MIXTURE_RATES = {True: 0.7, False: 0.36}
"""Speed of a mixture-of-experts layer over that of a dense one of equal active FLOPs, with the fused kernels and
without: 0.68 to 0.83 and 0.31 to 0.43 were measured (docs/performance.md)."""
MUON_EFFICIENCY = 0.28
"""From orthogonalisation of 604M elements in 28 ms on an H200 (docs/optimizer.md)."""
_ADAM_BYTES = 28
"""For each element: reads of weight, gradient and two moments, and writes of all but the gradient."""
_HOST_BYTES_PER_SECOND = 40e9
"""Host memory bandwidth of one rank with an offloaded optimiser: 8 ranks share 320 GB/s."""
_PCIE_BYTES_PER_SECOND = 25e9
"""Reached by PCIe 4.0 x16 in one direction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSeconds:
    """Seconds of one optimiser step, by part."""

    forward_backward: float
    """Recomputation included."""
    optimizer: float
    exposed_communication: float

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return self.forward_backward + self.optimizer + self.exposed_communication


def step_seconds(
    run: RunConfig,
    device: Device,
    traffic: list[Traffic],
    num_loops: float,
    num_grad_loops: float,
    efficiency: float | None = None,
) -> StepSeconds:
    """Estimate the time of a step with these mean loop counts.

    Args:
        efficiency: share of the device's peak that forward and backward reach; None takes ``default_efficiency``.
    """
    model, data = run.model, run.data
    rate = device.peak_flops(run.parallel.precision) * (efficiency or default_efficiency(run, device))
    num_tokens = data.batch_size * data.seq_len / run.cluster.world_size
    flops = run_flops(run, num_loops, num_grad_loops).total
    if run.parallel.remat != "none":
        flops += num_grad_loops * loop_flops(model, data.seq_len).total
    forward_backward = num_tokens * flops / rate
    window = num_tokens / run.num_micro_batches * _prelude_backward_flops(run) / rate
    return StepSeconds(
        forward_backward=forward_backward,
        optimizer=_optimizer_seconds(run, device),
        exposed_communication=_exposed(run, traffic, forward_backward, window),
    )


def default_efficiency(run: RunConfig, device: Device) -> float:
    """Return the share of the peak that forward and backward should reach: a mixture slows its part of the FLOPs."""
    model, num_loops, num_grad_loops = run.model, run.depth.mean, run.depth.grad_loops
    if not model.is_moe:
        return DENSE_EFFICIENCY
    layer = 2 * num_matrix_elements(ffn_shapes(model.dim, model.core_ffn, active=True))
    in_mixtures = model.num_core_layers * layer * (num_loops + 2 * num_grad_loops)
    share = in_mixtures / run_flops(run, num_loops, num_grad_loops).total
    rate = MIXTURE_RATES[runtime(run, device.has_fused_experts).fused_experts]
    return DENSE_EFFICIENCY / (1 - share + share / rate)


def _prelude_backward_flops(run: RunConfig) -> float:
    """FLOPs of each token in the part of the backward that runs after the core's gradients are complete."""
    model = run.model
    num_blocks = model.num_prelude_layers + model.num_coda_layers
    blocks = outer_flops(model, run.data.seq_len).total - 2 * model.vocab_size * model.dim
    return 2 * blocks * model.num_prelude_layers / num_blocks if num_blocks else 0.0


def _exposed(run: RunConfig, traffic: list[Traffic], forward_backward: float, window: float) -> float:
    """Seconds of communication that is not overlapped.

    Gradients overlap only with the prelude's backward, because every loop adds to those of the core.
    """
    parallel = run.parallel
    overlaps = isinstance(parallel, DeepSpeedParallel) and parallel.zero_stage > 0 and parallel.overlap_communication
    seconds = dict.fromkeys((part.kind for part in traffic), 0.0)
    for part in traffic:
        seconds[part.kind] += part.seconds
    gradients = seconds.pop("gradients", 0.0)
    gathers = seconds.pop("weights in use", 0.0)
    exposed = max(0.0, gradients - window) if overlaps else gradients
    return exposed + max(0.0, gathers - forward_backward) + sum(seconds.values())


def _optimizer_seconds(run: RunConfig, device: Device) -> float:
    elements = rank_elements(run.model, run.parallel, run.cluster.world_size, run.halting)
    if isinstance(run.parallel, DeepSpeedParallel) and run.parallel.offload_optimizer:
        return elements.slice * (_ADAM_BYTES / _HOST_BYTES_PER_SECOND + 8 / _PCIE_BYTES_PER_SECOND)
    seconds = elements.slice * _ADAM_BYTES / device.memory_bytes_per_second
    if isinstance(run.optim, MuonAdamWConfig):
        rate = device.peak_flops("bf16") * MUON_EFFICIENCY
        seconds += muon_flops(run) / rate
    return seconds


def muon_flops(run: RunConfig) -> float:
    """Newton-Schulz on every hidden matrix [m, n], m <= n, of a rank: 4 m^2 n + 2 m^3 a step."""
    model, parallel = run.model, run.parallel
    assert isinstance(run.optim, MuonAdamWConfig)
    ep_size = parallel.ep_size if isinstance(parallel, DeepSpeedParallel) else 1
    num_outer = model.num_prelude_layers + model.num_coda_layers
    total = 0.0
    for ffn, num_blocks in ((model.ffn, num_outer), (model.core_ffn, model.num_core_layers)):
        for name, shape in block_shapes(model, ffn).items():
            if len(shape) < 2 or name.startswith("router."):
                continue
            short, long = sorted(shape[-2:])
            count = shape[0] / ep_size if len(shape) == 3 else 1
            total += num_blocks * count * (4 * short**2 * long + 2 * short**3)
    return run.optim.num_newton_schulz_steps * total
