"""The position of the run in the data stream."""

from typing import Any

import lightning.pytorch as pl

from mythos.callbacks.base import StepCallback, StepResult
from mythos.data.datamodule import TokenDataModule


class DataPosition(StepCallback):
    """Sets the data module's number of samples that have been trained on; prefetched ones do not count."""

    def __init__(self, data: TokenDataModule, batch_size: int) -> None:
        self.data = data
        self.batch_size = batch_size

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        self.data.set_position(self.data.next_sample + self.batch_size)
