"""Time the optimisers' steps on a model's parameters, and compare them with a step's micro-batches."""

from typing import NamedTuple

import torch

from mythos.bench.rows import Row, measure
from mythos.bench.step import Step, fixed
from mythos.bench.timing import Spread, rounds, spread
from mythos.config.optim import AdamWConfig, MuonAdamWConfig
from mythos.config.run import RunConfig
from mythos.optim.build import build_optimizer
from mythos.optim.groups import grouping


class Comparison(NamedTuple):
    """Times of the optimisers' steps, without clipping, and of one micro-batch's forward and backward."""

    rows: list[Row]
    state_bytes: dict[str, int]
    micro_batch: Spread
    tokens_of_micro_batch: int

    def share(self, row: Row, num_tokens: int) -> float:
        """Share of the optimiser in the time of a step of ``num_tokens`` tokens."""
        forward_backward_ms = self.micro_batch.median_ms * num_tokens / self.tokens_of_micro_batch
        return row.time.median_ms / (row.time.median_ms + forward_backward_ms)


def compare(
    config: RunConfig, device: torch.device, mean_document: int, num_rounds: int, num_warmup: int
) -> Comparison:
    """Time one micro-batch, then both optimisers alternately on its gradients."""
    config = fixed(config)
    step = Step(config, device, mean_document)

    def micro_batch() -> None:
        step.module.on_train_batch_start(step.batches[0], 0)
        step.module.training_step(step.batches[0], 0)["loss"].backward()

    for _ in range(num_warmup):
        micro_batch()
    (times,) = rounds({"": micro_batch}, device, num_rounds, calls_per_round=1).values()  # one keeps the device busy
    step.module.on_before_optimizer_step(step.optimizer)
    optimizers = {kind: _optimizer(config, kind, step) for kind in ("adamw", "muon_adamw")}
    rows = measure({name: each.step for name, each in optimizers.items()}, None, device, num_rounds, num_warmup)
    state_bytes = {
        name: sum(tensor.nbytes for values in each.state.values() for tensor in values.values())
        for name, each in optimizers.items()
    }
    return Comparison(rows, state_bytes, spread(times), config.data.micro_batch_size * config.data.seq_len)


def _optimizer(config: RunConfig, kind: str, step: Step) -> torch.optim.Optimizer:
    """The configured optimiser, or one of the other kind with arbitrary learning rates."""
    if config.optim.kind == kind:
        optim = config.optim
    else:
        optim = AdamWConfig(lr=1e-4) if kind == "adamw" else MuonAdamWConfig(lr=1e-4, muon_lr=1e-4)
    return build_optimizer(
        optim,
        [(name, each) for name, each in step.model.named_parameters() if each.requires_grad],
        grouping(step.model.config),
    )


def table(comparison: Comparison, tokens: list[int]) -> str:
    """Table with one line per optimiser: time, state, and its share of a step for each number of tokens."""
    shares = " ".join(f"{f'of {num:,}':>14}" for num in tokens)
    lines = [f"{'optimiser':12} {'ms':>9} {'80% of rounds':>20} {'state':>10} {shares}"]
    for row in comparison.rows:
        state = f"{comparison.state_bytes[row.name] / 2**30:.3f} GiB"
        shares = " ".join(f"{comparison.share(row, num):14.2%}" for num in tokens)
        time = f"{row.time.low_ms:.3f} to {row.time.high_ms:.3f}"
        lines.append(f"{row.name:12} {row.time.median_ms:9.3f} {time:>20} {state:>10} {shares}")
    one = comparison.micro_batch
    lines.append(
        f"forward and backward of {comparison.tokens_of_micro_batch:,} tokens: {one.median_ms:.3f} ms "
        f"({one.low_ms:.3f} to {one.high_ms:.3f})"
    )
    return "\n".join(lines)
