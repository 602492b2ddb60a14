"""The held-out loss at several loop counts, always on the same tokens."""

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch

from mythos.callbacks.base import StepCallback, StepResult
from mythos.callbacks.metrics import MetricsWriter
from mythos.callbacks.ranks import sum_over_ranks
from mythos.config import records
from mythos.config.run import ValidationConfig
from mythos.data.datamodule import TokenDataModule
from mythos.types import Batch


class Validation(StepCallback):
    """Evaluates the validation batches every ``run.validation.every`` steps and after the last one.

    ``latest`` is the last held-out loss in nats per token, by loop count.
    """

    def __init__(self, config: ValidationConfig, data: TokenDataModule, metrics: MetricsWriter, num_steps: int) -> None:
        self.config = config
        self.num_loops = tuple(sorted(set(config.num_loops)))
        self.data = data
        self.metrics = metrics
        self.num_steps = num_steps
        self.latest: dict[int, float] = {}

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> StepResult | None:
        step = result.step
        if step % self.config.every and step != self.num_steps:
            return None
        total_X = torch.zeros(len(self.num_loops), dtype=torch.float64, device=module.device)
        num_targets = torch.zeros((), dtype=torch.float64, device=module.device)
        module.eval()
        for host_batch in self.data.val_dataloader():
            batch: Batch = module.transfer_batch_to_device(host_batch, module.device, 0)
            with trainer.precision_plugin.forward_context():
                total_X += module.evaluate_loops(batch, self.num_loops)[0]
            num_targets += batch.num_targets
        module.train()
        sums = sum_over_ranks(trainer, {"total_X": total_X, "num_targets": num_targets})
        losses = (sums["total_X"] / sums["num_targets"]).tolist()
        self.latest = dict(zip(self.num_loops, losses, strict=True))
        self.metrics.write(trainer, {records.validation_loss(d): loss for d, loss in self.latest.items()}, step)
        return replace(result, validation=self.latest)
