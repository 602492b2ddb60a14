"""A window of steps under torch's profiler, planned or asked for while the run goes on."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.profiler import ProfilerActivity, profile

from mythos.callbacks.base import StepCallback
from mythos.config.tracking import ProfileConfig, Tracking
from mythos.files import remove, replacing

REQUEST_FILE = "profile-now"
FOLDER = "profile"
_MAX_ALLOCATIONS = 200_000
"""Events of the allocator that a snapshot holds."""


class ProfileWindow(StepCallback):
    """Profiles steps ``start`` to ``start + num_steps - 1``, and as many after ``<run>/profile-now`` appears.

    SIGUSR2 to rank 0 asks as the file does. Rank 0 looks at record steps only and tells the others, so that all
    profile the same steps. Each rank writes ``profile/step-<first>-rank-<rank>/``: ``trace.json.gz`` for
    chrome://tracing or Perfetto and, on CUDA, ``memory.pickle`` for pytorch.org/memory_viz. Outside a window nothing
    runs. Stands after the throughput, which leaves these steps out.
    """

    def __init__(self, tracking: Tracking, run: Path, num_steps: int) -> None:
        self.tracking = tracking
        self.settings = tracking.profile or ProfileConfig(start=num_steps + 1)
        self.run = run
        self.num_steps = num_steps
        self.asked_step: int | None = None
        """First step of a window that was asked for."""
        self.first_step = 0
        """Of the window that is open."""
        self.profiler: profile | None = None
        self.is_asked = False
        self.previous_handler: Any = None

    @property
    def is_active(self) -> bool:
        """Whether the present step is profiled."""
        return self.profiler is not None

    def begins_at(self, step: int) -> bool:
        """Whether a window opens with this step."""
        return step in (self.settings.start, self.asked_step)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            self.previous_handler = signal.signal(signal.SIGUSR2, self._ask)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._give_up()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._give_up()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step + 1
        if self.profiler is None and self.begins_at(step):
            self.first_step = step
            self._open(pl_module.device)

    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        if self.profiler is not None and step == self.first_step + self.settings.num_steps - 1:
            try:
                self._close(module.device, trainer.global_rank)
            except Exception as error:  # torch's recorders fail in ways of their own; a look is not worth a run
                print(f"warning: the profile of step {self.first_step} is lost ({error!r}).", file=sys.stderr)
                self.profiler = None
        if self.profiler is None and self.tracking.is_record_step(step, self.num_steps):
            is_asked = trainer.strategy.broadcast(trainer.is_global_zero and self._take_request())
            self.asked_step = step + 1 if is_asked else None

    def _ask(self, number: int, frame: Any) -> None:
        self.is_asked = True

    def _take_request(self) -> bool:
        is_asked = self.is_asked or (self.run / REQUEST_FILE).exists()
        (self.run / REQUEST_FILE).unlink(missing_ok=True)
        self.is_asked = False
        return is_asked

    def _open(self, device: torch.device) -> None:
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            if self.settings.memory:
                torch.cuda.memory._record_memory_history(max_entries=_MAX_ALLOCATIONS)
        self.profiler = profile(activities=activities, record_shapes=True, profile_memory=self.settings.memory)
        self.profiler.start()

    def _close(self, device: torch.device, rank: int) -> None:
        assert self.profiler is not None
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.profiler.stop()
        target = self.run / FOLDER / f"step-{self.first_step:08d}-rank-{rank:05d}"
        remove(target)  # a resumed run comes by again
        with replacing(target) as folder:
            folder.mkdir()
            self.profiler.export_chrome_trace(str(folder / "trace.json.gz"))
            if device.type == "cuda" and self.settings.memory:
                torch.cuda.memory._dump_snapshot(str(folder / "memory.pickle"))
                torch.cuda.memory._record_memory_history(enabled=None)
        self.profiler = None

    def _give_up(self) -> None:
        """Let go of a window that the run's end has cut, and of the signal."""
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None
        if self.previous_handler is not None:
            signal.signal(signal.SIGUSR2, self.previous_handler)
            self.previous_handler = None
