"""Saves checkpoints, from which a run resumes bitwise wherever it ended."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

import mythos
from mythos.callbacks.base import StepCallback, StepResult
from mythos.checkpoint import store
from mythos.checkpoint.background import BackgroundWriter
from mythos.checkpoint.fragments import Fragment
from mythos.checkpoint.manifest import BEST_METRIC, Manifest
from mythos.checkpoint.mirror import Mirror, mirror_of
from mythos.checkpoint.saved import record_saved
from mythos.config.base import ConfigError, encode, fingerprint
from mythos.config.os_errors import explained
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.parts import foreign_packages
from mythos.config.run import RunConfig
from mythos.data.datamodule import TokenDataModule
from mythos.parallel.host_copy import HostCopy
from mythos.parallel.saving import Snapshot


class Checkpointing(StepCallback):
    """Saves every ``run.checkpoint.every`` steps, after the last one, and where the run is asked to stop.

    The run waits while this rank's fragments are copied to host memory; a thread writes and hashes them, one save at a
    time.

    Args:
        on_saved: called in that thread on rank 0 with the seconds from the beginning of a save until it and its copy
            were complete.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: Path,
        data: TokenDataModule,
        data_fingerprint: str,
        on_saved: Callable[[float], None],
    ) -> None:
        self.config = config
        self.settings = config.run.checkpoint
        self.directory = directory
        self.data = data
        self.data_fingerprint = data_fingerprint
        self.on_saved = on_saved
        self.validation: dict[int, float] = {}
        """The last held-out loss, by loop count."""
        self.host = HostCopy()
        self.writer = BackgroundWriter()
        self.mirror = mirror_of(config.run)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:  # before the first record: where there are records and no folder, it was lost
            with explained(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        step = result.step
        if result.validation is not None:
            self.validation = result.validation
        is_due = step % self.settings.every == 0 or step == self.config.run.num_steps
        if not is_due and not trainer.should_stop:
            return
        trainer.save_checkpoint(self.directory, storage_options=partial(self._save, trainer, step))
        if not self.settings.asynchronous:
            self._wait(trainer)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        self.host.before_update()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._wait(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.writer.wait()

    def _wait(self, trainer: pl.Trainer) -> None:
        """Wait until every rank has written and rank 0 has completed the checkpoint."""
        self.writer.wait()
        trainer.strategy.barrier()

    def _save(self, trainer: pl.Trainer, step: int, snapshot: Snapshot) -> None:
        self.writer.wait()
        begun_at = time.monotonic()
        saving = store.Saving(self.directory, step, trainer.global_rank, trainer.world_size)
        if trainer.is_global_zero:
            saving.begin()
        trainer.strategy.barrier()
        fragments = self.host.copy(snapshot.fragments)
        manifest = self._manifest(step) if trainer.is_global_zero else None
        self.writer.submit(partial(self._write, saving, fragments, snapshot, manifest, begun_at))

    def _write(
        self,
        saving: store.Saving,
        fragments: list[Fragment],
        snapshot: Snapshot,
        manifest: Manifest | None,
        begun_at: float,
    ) -> None:
        """Write one rank's part in the thread; rank 0, which has the manifest, completes the checkpoint."""
        self.host.wait()
        saving.write(fragments, snapshot.shapes, None if manifest is None else snapshot.state)
        if manifest is None:
            return
        path = saving.finish(manifest, self.config.cluster.timeout_seconds)
        record_saved(self.directory.parent, path.name)
        store.keep(self.directory, self.settings, valid=path)
        if self.mirror is not None:
            self._copy(self.mirror, path)
        self.on_saved(time.monotonic() - begun_at)

    def _copy(self, mirror: Mirror, path: Path) -> None:
        """Copy a finished checkpoint; if the mirror fails, the copy is missing and the run continues."""
        try:
            mirror.copy(path)
            mirror.prune(self.settings, valid=path.name)
        except ConfigError as error:
            store.warn_on_stderr(f"{error} {path.name} is only in {self.directory}.")

    def _manifest(self, step: int) -> Manifest:
        config, parallel = self.config, self.config.parallel
        layout: dict[str, Any] = {"kind": parallel.kind, "world_size": config.cluster.world_size}
        if isinstance(parallel, DeepSpeedParallel):
            layout |= {"zero_stage": parallel.zero_stage, "ep_size": parallel.ep_size}
        losses = self.validation
        nearest = min(losses, key=lambda num_loops: abs(num_loops - config.depth.mean), default=None)
        return Manifest(
            step=step,
            tokens=self.data.next_sample * config.data.seq_len,
            next_sample=self.data.next_sample,
            config=encode(config),
            fingerprint=fingerprint(config),
            data_fingerprint=self.data_fingerprint,
            code_version=mythos.__version__,
            layout=layout,
            packages=foreign_packages(config.model),
            metrics={} if nearest is None else {BEST_METRIC: losses[nearest]},
        )
