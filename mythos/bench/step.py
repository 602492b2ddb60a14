"""One training step without Lightning's training loop."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mythos.config.base import ConfigError
from mythos.config.depth import FixedDepth
from mythos.config.parallel import SingleParallel
from mythos.config.run import RunConfig
from mythos.layers.documents import count_documents
from mythos.model.mythos import Mythos
from mythos.moe.layer import MoE
from mythos.moe.router import Router, Routing
from mythos.optim.build import build_optimizer
from mythos.optim.groups import grouping
from mythos.parallel.compile import compile_parts
from mythos.train.build import build_model
from mythos.train.module import MythosModule
from mythos.types import Batch, RouterStats


@dataclass
class TrainerState:
    """Attributes that ``MythosModule.training_step`` reads from its trainer."""

    accumulate_grad_batches: int
    global_step: int = 0


class Step:
    """Takes optimiser steps on random tokens, the same ones each time.

    A step runs ``MythosModule.training_step`` on each micro-batch with the hooks around it, its backward,
    ``configure_gradient_clipping`` and the configured optimiser. The loader and the training callbacks (router
    balancing, guard, telemetry) are not included.

    Args:
        mean_document: mean length of the documents in tokens; 0 lets every token attend to all before it.
        is_balanced: route the same number of tokens to every expert, whatever the router's scores.
    """

    def __init__(self, config: RunConfig, device: torch.device, mean_document: int, is_balanced: bool = False) -> None:
        self.config, self.device = config, device
        model = build_model(config)
        if is_balanced:
            balance(model)
        if config.parallel.compile:
            compile_parts(model)
        self.module = MythosModule(config, model).to(device)  # autocast uses the module's device, not the model's
        self.trainer = TrainerState(config.num_micro_batches)
        self.module.trainer = self.trainer  # type: ignore[assignment]
        parameters = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        self.optimizer = build_optimizer(config.optim, parameters, grouping(config.model))
        self.batches = random_batches(config, mean_document, device)

    def __call__(self, mark: Callable[[str], None] = lambda part: None) -> Tensor:
        """Take one step.

        Args:
            mark: called with the name of a part when its work has been queued; see ``parts``.

        Returns:
            The loss of the last micro-batch, without synchronising.
        """
        for index, batch in enumerate(self.batches):
            self.module.on_train_batch_start(batch, index)
            loss = self.module.training_step(batch, index)["loss"] / len(self.batches)
            mark("head and loss")
            loss.backward()
            mark("prelude and coda")
        self.module.on_before_optimizer_step(self.optimizer)
        self.module.configure_gradient_clipping(self.optimizer, self.config.optim.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        mark("optimiser")
        return loss.detach()

    def take(self) -> None:
        """Take one step and return nothing, as the timing functions expect."""
        self()

    @property
    def model(self) -> Mythos:
        """The model being trained."""
        return self.module.model

    @property
    def num_tokens(self) -> int:
        """Number of tokens of one step."""
        return self.config.data.batch_size * self.config.data.seq_len

    def set_depth(self, num_loops: int, num_grad_loops: int) -> None:
        """Change the number of loops of later steps."""
        depth = FixedDepth(num_loops=num_loops, num_grad_loops=num_grad_loops)
        self.module.config = replace(self.config, depth=depth)

    def resident_bytes(self) -> int:
        """Bytes that stay allocated between steps: parameters, buffers, optimiser state and batches."""
        state = [each for values in self.optimizer.state.values() for each in values.values()]
        batches = [part for batch in self.batches for part in batch]
        tensors = [*self.model.parameters(), *self.model.buffers(), *state, *batches]
        return sum(each.nbytes for each in tensors if isinstance(each, Tensor))

    def peak_bytes(self) -> int | None:
        """Take a step and return the peak bytes of this model alone; None without CUDA, whose allocator records it."""
        if self.device.type != "cuda":
            return None
        others = torch.cuda.memory_allocated(self.device) - self.resident_bytes()
        torch.cuda.reset_peak_memory_stats(self.device)
        self()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - others


def fixed(config: RunConfig) -> RunConfig:
    """The configuration with T fixed at the policy's rounded mean.

    Raises:
        ConfigError: the configuration needs more than one process.
    """
    if not isinstance(config.parallel, SingleParallel) or config.cluster.world_size > 1:
        raise ConfigError(
            f"parallel.kind is {config.parallel.kind} on {config.cluster.world_size} ranks, but bench times one "
            "process; set parallel=single and one device."
        )
    if isinstance(config.depth, FixedDepth):
        return config
    num_loops = config.mean_loops
    depth = FixedDepth(num_loops=num_loops, num_grad_loops=min(num_loops, config.depth.grad_loops))
    return replace(config, depth=depth)


def random_batches(config: RunConfig, mean_document: int, device: torch.device) -> list[Batch]:
    """The micro-batches of one step: random tokens in documents of geometric length."""
    data, generator = config.data, torch.Generator().manual_seed(0)
    shape = (data.micro_batch_size, data.seq_len)
    has_documents = data.mask_documents and mean_document > 0
    batches = []
    for index in range(config.num_micro_batches):
        tokens = torch.randint(config.model.vocab_size, (shape[0], shape[1] + 1), generator=generator).to(device)
        document_ids_BS = random_documents(shape, mean_document if has_documents else 0, torch.device("cpu"), index)
        num_documents = count_documents(document_ids_BS)
        document_ids_BS = document_ids_BS.to(device)
        position_S = torch.arange(shape[1], device=device)
        starts_BS = functional.pad(document_ids_BS.diff(dim=1), (1, 0)) > 0
        batches.append(
            Batch(
                tokens_BS=tokens[:, :-1].contiguous(),
                targets_BS=tokens[:, 1:].contiguous(),
                positions_BS=position_S - torch.where(starts_BS, position_S, 0).cummax(1).values,
                document_ids_BS=document_ids_BS if has_documents else None,
                sample_ids_B=torch.arange(shape[0], device=device) + index * shape[0],
                num_targets=torch.tensor(float(data.batch_size * data.seq_len), device=device),
                num_sequences=torch.tensor(float(data.batch_size), device=device),
                num_documents=num_documents if has_documents else None,
            )
        )
    return batches


def random_documents(shape: tuple[int, int], mean_length: int, device: torch.device, seed: int = 0) -> Tensor:
    """Document of each token ``[B, S]``, from 0 on; lengths are geometric with the given mean, 0 means one document."""
    generator = torch.Generator().manual_seed(seed)
    starts_BS = torch.rand(shape, generator=generator) < (1 / mean_length if mean_length else 0.0)
    starts_BS[:, 0] = False
    return starts_BS.cumsum(1).to(device)


def balance(model: Mythos) -> None:
    """Replace the router of every mixture of experts by a round-robin router."""
    for layer in model.modules():
        if isinstance(layer, MoE):
            gate = layer.router.gate
            layer.router = RoundRobinRouter(layer.router.config, gate.in_features)
            layer.router.gate = gate


class RoundRobinRouter(Router):
    """Routes token n to experts nK, nK + 1, ..., nK + K - 1 modulo E.

    It is a class of its own because torch.compile distinguishes compiled code by class.
    """

    def forward(
        self, x_BSD: Tensor, bias_E: Tensor, expert_indices_NK: Tensor | None = None, change: Tensor | None = None
    ) -> tuple[Routing, RouterStats]:
        if expert_indices_NK is None:  # a recomputation gets those of the forward
            num_experts, num_active = self.config.num_experts, self.config.num_active
            assignment_M = torch.arange(x_BSD.shape[0] * x_BSD.shape[1] * num_active, device=x_BSD.device)
            expert_indices_NK = (assignment_M % num_experts).view(-1, num_active).to(torch.int16)
        return super().forward(x_BSD, bias_E, expert_indices_NK, change)
