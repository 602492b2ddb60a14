"""A window of steps under torch's profiler, planned or requested while the run continues."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from mythos.callbacks.base import StepCallback, StepResult
from mythos.callbacks.step_profiler import StepProfiler
from mythos.config.tracking import ProfileConfig, Tracking

REQUEST_FILE = "profile-now"
FOLDER = "profile"


class ProfileWindow(StepCallback):
    """Profiles steps ``start`` to ``start + num_steps - 1``, and as many after ``<run>/profile-now`` appears.

    SIGUSR2 to rank 0 requests a window as the file does. Rank 0 looks at record steps only and broadcasts what it
    finds, so that all ranks profile the same steps. Each rank writes ``profile/step-<first>-rank-<rank>/``:
    ``trace.json.gz`` for chrome://tracing or Perfetto and, on CUDA, ``memory.pickle`` for pytorch.org/memory_viz.
    Outside a window nothing is recorded.
    """

    def __init__(self, tracking: Tracking, run: Path, num_steps: int, profiler: StepProfiler) -> None:
        self.tracking = tracking
        self.settings = tracking.profile or ProfileConfig(start=num_steps + 1)
        self.run = run
        self.num_steps = num_steps
        self.profiler = profiler
        self.requested_step: int | None = None
        """First step of a window that was requested."""
        self.first_step = 0
        """Of the window that is open."""
        self.has_signal = False
        self.previous_handler: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            self.previous_handler = signal.signal(signal.SIGUSR2, self._request)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._release()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._release()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step + 1
        if not self.profiler.is_open and step in (self.settings.start, self.requested_step):
            self.first_step = step
            self.profiler.open(pl_module.device, self.settings.memory)

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        step = result.step
        if self.profiler.is_open and step == self.first_step + self.settings.num_steps - 1:
            target = self.run / FOLDER / f"step-{self.first_step:08d}-rank-{trainer.global_rank:05d}"
            try:
                self.profiler.close(module.device, target)
            except Exception as error:  # a profile is not worth a run
                print(f"warning: the profile of step {self.first_step} is lost ({error!r}).", file=sys.stderr)
        if not self.profiler.is_open and self.tracking.is_record_step(step, self.num_steps):
            is_requested = trainer.strategy.broadcast(trainer.is_global_zero and self._take_request())
            self.requested_step = step + 1 if is_requested else None

    def _request(self, number: int, frame: Any) -> None:
        self.has_signal = True

    def _take_request(self) -> bool:
        is_requested = self.has_signal or (self.run / REQUEST_FILE).exists()
        (self.run / REQUEST_FILE).unlink(missing_ok=True)
        self.has_signal = False
        return is_requested

    def _release(self) -> None:
        """Abandon a window that is open at the end of the run, and restore the signal's handler."""
        self.profiler.abandon()
        if self.previous_handler is not None:
            signal.signal(signal.SIGUSR2, self.previous_handler)
            self.previous_handler = None
