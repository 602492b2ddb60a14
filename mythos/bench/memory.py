"""Peak memory of one training step by the number of loops."""

from typing import NamedTuple

import torch
from torch import Tensor

from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.loop.exits.draw import Exits
from mythos.loop.plan import StepPlan
from mythos.loop.policy import Depth
from mythos.loop.remat import remat_of
from mythos.losses.objective import objective
from mythos.model.init import initialize
from mythos.model.mythos import Mythos
from mythos.parallel.compile import compile_parts
from mythos.types import Batch


class MemoryPoint(NamedTuple):
    """Peak allocated bytes of forward and backward at a number of loops, above the bytes allocated before the step."""

    num_loops: int
    peak_bytes: int


def measure(config: RunConfig, loops: list[int]) -> list[MemoryPoint]:
    """Measure each number of loops, all of them with gradients, after two warm-up steps.

    Raises:
        ConfigError: there is no CUDA device, whose allocator records the peak.
    """
    if not torch.cuda.is_available():
        raise ConfigError("bench memory reads the CUDA allocator, but torch sees no CUDA device.")
    device = torch.device("cuda")
    model = Mythos(config.model, config.halting)
    initialize(model, config.model, config.run.seed)
    model.to(device).core.remat = remat_of(config.parallel)
    if config.parallel.compile:
        compile_parts(model)
    batch = random_batch(config, device)
    for num_loops in (2, 3):
        _step(config, model, batch, num_loops)
    points = []
    for num_loops in loops:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _step(config, model, batch, num_loops)
        torch.cuda.synchronize()
        points.append(MemoryPoint(num_loops, torch.cuda.max_memory_allocated() - before))
    return points


def state_bytes(config: RunConfig) -> int:
    """Bytes of one state tensor of a micro-batch; the residual stream is fp32 also under bf16 autocast."""
    return config.data.micro_batch_size * config.data.seq_len * config.model.dim * 4


def random_batch(config: RunConfig, device: torch.device) -> Batch:
    """One micro-batch of random tokens, which forms a whole step."""
    shape = (config.data.micro_batch_size, config.data.seq_len + 1)
    tokens = torch.randint(config.model.vocab_size, shape, generator=torch.Generator().manual_seed(0)).to(device)
    positions = torch.arange(shape[1] - 1, device=device).expand(shape[0], -1)
    return Batch(
        tokens_BS=tokens[:, :-1],
        targets_BS=tokens[:, 1:],
        positions_BS=positions,
        document_ids_BS=None,
        sample_ids_B=torch.arange(shape[0], device=device),
        num_targets=torch.tensor(float(positions.numel()), device=device),
        num_sequences=torch.tensor(float(shape[0]), device=device),
    )


def _step(config: RunConfig, model: Mythos, batch: Batch, num_loops: int) -> Tensor:
    """Run forward and backward; gradients stay allocated, as they do between the micro-batches of a step."""
    plan = StepPlan(Depth(num_loops, num_loops), Exits((num_loops - 1,), (1.0,)), 0.0)
    with torch.autocast("cuda", torch.bfloat16, enabled=config.parallel.precision != "fp32"):
        output = model(batch, num_loops, noise_seed=0)
        loss = objective(config, output, batch, plan).total
    del output  # statistics that no penalty uses would keep their inputs alive
    loss.backward()
    return loss.detach()
