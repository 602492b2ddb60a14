"""Saves checkpoints, from which a run resumes bitwise wherever it ended."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

import mythos
from mythos.callbacks.base import StepCallback, StepResult
from mythos.callbacks.ranks import sum_over_ranks
from mythos.callbacks.stop_vote import StopVote
from mythos.checkpoint import store
from mythos.checkpoint.background import BackgroundWriter
from mythos.checkpoint.copies import Copies
from mythos.checkpoint.fragments import Fragment
from mythos.checkpoint.manifest import BEST_METRIC, Manifest
from mythos.checkpoint.mirror import mirror_of
from mythos.checkpoint.saved import record_saved
from mythos.config.base import encode, fingerprint
from mythos.config.os_errors import explained
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.parts import foreign_packages
from mythos.config.run import RunConfig
from mythos.data.datamodule import TokenDataModule
from mythos.parallel.host_copy import HostCopy
from mythos.parallel.saving import Snapshot

_POLL_SECONDS = 0.2


class Checkpointing(StepCallback):
    """Saves every ``run.checkpoint.every`` steps, after the last one, and where the run is asked to stop.

    The run waits while this rank's fragments are copied to host memory; a thread writes and hashes them, one save at a
    time. The mirror has a thread of its own, so that no step and no save waits for it.

    Args:
        vote: learns how long saves and copies take, and knows whether the run is asked to stop.
        beat: tells the watchdog what begins.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: Path,
        data: TokenDataModule,
        data_fingerprint: str,
        run_id: str | None,
        vote: StopVote,
        beat: Callable[[str], None],
    ) -> None:
        self.config = config
        self.settings = config.run.checkpoint
        self.directory = directory
        self.data = data
        self.data_fingerprint = data_fingerprint
        self.run_id = run_id
        self.vote = vote
        self.beat = beat
        self.validation: dict[int, float] = {}
        """The last held-out loss, by loop count."""
        self.host = HostCopy()
        self.writer = BackgroundWriter()
        self.save_seconds = 0.0
        mirror = mirror_of(config.run)
        self.copies = None if mirror is None else Copies(mirror, self.settings, run_id, self._add_copy)

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

    def state_dict(self) -> dict[str, Any]:
        return {"validation": list(self.validation.items())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validation = dict(state_dict["validation"])

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        self.host.before_update()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._wait(trainer)
        if self.copies is not None:
            self._wait_for_copies(trainer, self.copies)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.writer.wait()

    def _wait(self, trainer: pl.Trainer) -> None:
        """Wait until every rank has written and rank 0 has completed the checkpoint."""
        self.writer.wait()
        trainer.strategy.barrier()

    def _wait_for_copies(self, trainer: pl.Trainer, copies: Copies) -> None:
        """Wait on all ranks, which must end together, until rank 0's copies are complete or the time is over.

        The ranks meet every ``_POLL_SECONDS``, so that neither a collective nor the watchdog runs out of time.
        """
        begun_at, asked_at, is_waiting = time.monotonic(), math.inf, True
        if trainer.global_step < self.config.run.num_steps:
            asked_at = begun_at
        while is_waiting:
            self.beat("waiting for the last copy to the mirror")
            now = time.monotonic()
            end = min(begun_at + self.settings.copy_timeout_seconds, asked_at + self.settings.copy_stop_seconds)
            has_time = now < end and not self.vote.is_out_of_time
            is_waiting = trainer.is_global_zero and has_time and bool(copies.unfinished())
            votes = torch.tensor([is_waiting, self.vote.request.is_asked], dtype=torch.float64)
            is_waiting, is_asked = (bool(vote) for vote in sum_over_ranks(trainer, {"votes": votes})["votes"])
            if is_asked:
                asked_at = min(asked_at, now)
            if is_waiting and trainer.is_global_zero:
                copies.wait(_POLL_SECONDS)
        for path in copies.unfinished():
            seconds = time.monotonic() - begun_at
            store.warn_on_stderr(
                f"{copies.mirror.url}: {path.name} was not copied within {seconds:.0f} seconds after the last step; it "
                f"is only in {path.parent}. Raise run.checkpoint.copy_stop_seconds or "
                "run.checkpoint.copy_timeout_seconds if the storage is only slow."
            )

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
        self.save_seconds = max(self.save_seconds, time.monotonic() - begun_at)
        self.vote.add_save(self.save_seconds)
        if self.copies is None:
            store.keep(self.directory, self.settings, valid=path)
            return
        with self.copies.in_use() as in_use:
            store.keep(self.directory, self.settings, valid=path, in_use=in_use)
        self.copies.add(path)

    def _add_copy(self, seconds: float) -> None:
        """The last save before a time limit is followed by its copy."""
        self.vote.add_save(self.save_seconds + min(seconds, self.settings.copy_stop_seconds))

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
            run_id=self.run_id,
            run_dir=str(self.directory.parent.resolve()),
            packages=foreign_packages(config.model),
            metrics={} if nearest is None else {BEST_METRIC: losses[nearest]},
        )
