"""The heartbeat of a training run."""

from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from mythos.callbacks.base import StepCallback, StepResult
from mythos.parallel.watchdog import Watchdog


class Heartbeat(StepCallback):
    """Reports to the watchdog what begins: each part of a step, and what follows it."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.watchdog.beat("placing the model on its devices and loading the checkpoint")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin(trainer, "waiting for its data")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._begin(trainer, "forward")

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._begin(trainer, "backward")

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        self._begin(trainer, "update")

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        self.watchdog.beat(f"after step {result.step}, metrics, validation, saving or data")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.watchdog.beat("finishing the last save")

    def _begin(self, trainer: pl.Trainer, part: str) -> None:
        self.watchdog.beat(f"in step {trainer.global_step + 1}, {part}")
