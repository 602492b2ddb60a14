"""Records which step is running, so that a crash can be attributed to its data, and reports skipped data."""

from collections.abc import Sequence
from contextlib import suppress
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
from mythos.data.poison import Step, StepRecord, mark_failure
from mythos.data.skips import sample_at
from mythos.parallel.processes import lost_peer


class Attempts(StepCallback):
    """Keeps the record of the running step on rank 0, marks a failed one, and reports each step whose data are skipped.

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
        self.running: Step | None = None
        """The step that is running; None between two."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.step_record = StepRecord(self.run)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            ends = np.array([self.data.next_sample, self.data.next_sample + self.batch_size - 1])
            first, last = sample_at(ends, self.data.skipped).tolist()
            self.running = Step(trainer.global_step + 1, first, last + 1)
            if self.step_record is not None:
                self.step_record.begin(self.running)

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
        is_lost_peer = isinstance(exception, RuntimeError) and lost_peer(exception) is not None
        is_of_disk = isinstance(exception, OSError) and is_of_files(exception)
        if is_of_disk or isinstance(exception, KeyboardInterrupt | ConfigError):  # not a failure of the step
            self._between_steps()
        elif self.running is not None and not is_lost_peer:  # a rank that fails itself marks its own failure
            with suppress(OSError):  # the exception is reported, whatever the disk does
                mark_failure(self.run, self.running)

    def _between_steps(self) -> None:
        self.running = None
        if self.step_record is not None:
            self.step_record.end()
