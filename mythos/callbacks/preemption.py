"""Ending between two steps, saved, because a scheduler or a time limit says so."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.callbacks.base import StepCallback
from mythos.callbacks.ranks import sum_over_ranks
from mythos.config.survival import SurvivalSettings
from mythos.parallel.stopping import StopRequest


class Preempted(Exception):
    """The run has been saved and ends before its last step; the message says why and how to go on."""


class Preemption(StepCallback):
    """Lets all ranks end after the same step as soon as one of them is asked to, or is short of time.

    The ranks' votes travel with the sum that the guard makes of each step anyway, so agreeing costs no exchange of its
    own. The step in which they agree is finished and saved.
    """

    def __init__(self, settings: SurvivalSettings, request: StopRequest) -> None:
        self.limit_seconds = settings.time_limit_seconds
        self.margin_seconds = settings.time_limit_margin_seconds
        self.request = request
        self.reason: str | None = None
        """Why the run ends after the step that is being taken; None lets it go on."""
        self.voted_at: float | None = None
        self.num_votes = 0
        self.longest_step_seconds = 0.0
        """Between two votes, so with validation and what a save makes the run wait; the first step left out."""
        self.longest_save_seconds = 0.0
        """Until the checkpoint, and its copy, were whole."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        leave_signals_alone(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Asked during the start: there is nothing to save."""
        self.decide(trainer, sum_over_ranks(trainer, {"stop": self.vote(trainer.strategy.root_device)})["stop"])
        trainer.should_stop = self.reason is not None

    def vote(self, device: torch.device) -> Tensor:
        """This rank's wish to stop, ``[2]``: because it was asked to, because its time is short."""
        now = time.monotonic()
        if self.voted_at is not None and self.num_votes > 2:
            self.longest_step_seconds = max(self.longest_step_seconds, now - self.voted_at)
        self.voted_at = now
        self.num_votes += 1
        wish = torch.zeros(2, dtype=torch.float64, device=device)
        wish[0].fill_(self.request.is_asked)
        wish[1].fill_(self._is_short_of_time())
        return wish

    def decide(self, trainer: pl.Trainer, votes: Tensor) -> None:
        """Take the sum of all ranks' votes, which is the same everywhere."""
        num_asked, num_late = votes.tolist()
        if self.reason is None and num_asked:
            self.reason = f"SIGTERM or SIGUSR1 on {num_asked:.0f} of {trainer.world_size} ranks"
        elif self.reason is None and num_late:
            self.reason = f"run.time_limit_seconds={self.limit_seconds:g}"

    def note_save(self, seconds: float) -> None:
        """How long a save took, from its beginning until it was whole."""
        self.longest_save_seconds = max(self.longest_save_seconds, seconds)

    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        if self.reason is None:
            return
        trainer.should_stop = True
        if trainer.is_global_zero and step < trainer.max_steps:
            print(f"{self.reason}: ending after step {step}; saving.", file=sys.stderr, flush=True)

    def check(self, trainer: pl.Trainer) -> None:
        """Call after training.

        Raises:
            Preempted: it ended before the last step.
        """
        if self.reason is not None and trainer.global_step < trainer.max_steps:
            raise Preempted(
                f"{self.reason}: saved at step {trainer.global_step} of {trainer.max_steps} and ended; "
                "the same command with resume=auto goes on."
            )

    def _is_short_of_time(self) -> bool:
        """Whether one more step, and a save after it, may end beyond the limit."""
        if self.limit_seconds is None:
            return False
        needed = 2 * self.longest_step_seconds + self.longest_save_seconds + self.margin_seconds
        return self.request.elapsed_seconds + needed > self.limit_seconds


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Keep Lightning 2.6 from handling signals, which has no switch.

    It would answer SIGTERM with an exception amid a step, and for that let rank 0 broadcast before every micro-batch
    whether it has been asked to stop, which makes the host wait for the device.
    """

    def nothing() -> None:
        pass

    for owner, name in (
        (trainer._signal_connector, "register_signal_handlers"),
        (trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor"),
    ):
        assert hasattr(owner, name)
        setattr(owner, name, nothing)
