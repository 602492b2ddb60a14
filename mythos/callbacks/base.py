"""Micro-batches in, optimiser steps out.

Order of events in a step of n micro-batches::

    n times: training_step -> on_micro_batch(observation)
             before the last of them ends: gradients are complete, are clipped, the optimiser steps
    once:    on_step_end(step), for every callback in the order of the trainer's list
"""

from typing import Any

import lightning.pytorch as pl

from mythos.types import Observation


class StepCallback(pl.Callback):
    """A callback that thinks in optimiser steps."""

    def on_micro_batch(self, observation: Observation) -> None:
        """Runs after each micro-batch's forward and backward."""

    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        """Runs after an optimiser step; ``step`` counts the finished ones."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook behind the two above."""
        self.on_micro_batch(outputs["observation"])
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.on_step_end(trainer, pl_module, trainer.global_step)
