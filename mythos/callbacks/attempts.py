"""Records which step is running, so that a crash can be attributed to its data, and reports skipped data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np

from mythos.callbacks.base import StepCallback, StepResult
from mythos.callbacks.metrics import MetricsWriter, announce
from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.os_errors import is_of_files
from mythos.data.datamodule import TokenDataModule
from mythos.data.poison import Step, StepRecord
from mythos.data.skips import sample_at


class Attempts(StepCallback):
    """Keeps the record of the running step on rank 0, and reports each step whose data are skipped.

    A step ends with this callback: a failure of the callbacks that follow is not attributed to its data.
    """

    def __init__(
        self, run: Path, data: TokenDataModule, batch_size: int, metrics: MetricsWriter, skipped: Sequence[Step]
    ) -> None:
        self.run = run
        self.data = data
        self.batch_size = batch_size
        self.metrics = metrics
        self.skipped = skipped
        self.step_record: StepRecord | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.step_record = StepRecord(self.run)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.step_record is not None and batch_idx % trainer.accumulate_grad_batches == 0:
            ends = np.array([self.data.next_sample, self.data.next_sample + self.batch_size - 1])
            first, last = sample_at(ends, self.data.skipped).tolist()
            self.step_record.begin(Step(trainer.global_step + 1, first, last + 1))

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        self._between_steps()
        step = result.step
        for failed in self.skipped:
            if failed.step == step:
                self.metrics.write(trainer, {records.guard("poison"): 1.0, records.GUARD_FIGURE: failed.start}, step)
                announce(
                    trainer,
                    "guard",
                    f"poison at step {step}",
                    f"samples {failed.start} to {failed.end - 1}, on which the step failed twice, are skipped.",
                )

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        is_of_disk = isinstance(exception, OSError) and is_of_files(exception)
        if is_of_disk or isinstance(exception, KeyboardInterrupt | ConfigError):  # not a failure of the step
            self._between_steps()

    def _between_steps(self) -> None:
        if self.step_record is not None:
            self.step_record.end()
