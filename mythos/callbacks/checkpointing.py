"""Saving, so that a run can die anywhere and come back the same."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

import mythos
from mythos.callbacks.base import StepCallback
from mythos.checkpoint import store
from mythos.checkpoint.manifest import VERSION, Manifest
from mythos.config.base import encode, fingerprint
from mythos.config.run import RunConfig
from mythos.data.datamodule import TokenDataModule


class Checkpointing(StepCallback):
    """Saves every so many steps and after the last one. Stands last, so that it saves what others have done."""

    def __init__(self, config: RunConfig, directory: Path, data: TokenDataModule, data_fingerprint: str) -> None:
        self.config = config
        self.directory = directory
        self.data = data
        self.data_fingerprint = data_fingerprint

    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        settings = self.config.run
        if step % settings.checkpoint.every and step != settings.num_steps:
            return
        manifest = Manifest(
            version=VERSION,
            step=step,
            tokens=self.data.next_sample * self.config.data.seq_len,
            next_sample=self.data.next_sample,
            config=encode(self.config),
            fingerprint=fingerprint(self.config),
            data_fingerprint=self.data_fingerprint,
            code_version=mythos.__version__,
            files={},
        )
        store.save(
            self.directory,
            manifest,
            lambda path: trainer.save_checkpoint(path / store.STATE_FILE),
            settings.checkpoint.keep_last,
        )
