"""Saves a run and ends it between two steps, when a scheduler or a time limit asks for it."""

import sys
from typing import Any

import lightning.pytorch as pl

from mythos.callbacks.base import StepCallback, StepResult, StopVotes
from mythos.callbacks.ranks import sum_over_ranks
from mythos.callbacks.stop_vote import StopVote
from mythos.config.exit_status import Preempted


class Preemption(StepCallback):
    """Ends all ranks after the same step as soon as one of them is asked to stop or is short of time.

    The step in which a rank votes to stop is finished and saved.
    """

    def __init__(self, stop_vote: StopVote) -> None:
        self.stop_vote = stop_vote
        self.reason: str | None = None
        """Why the run ends; None while it continues."""
        self.first_step = 0
        """Number of steps that were finished when this process began to train."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        disable_lightning_signals(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if a rank was asked to during the start, when there is nothing to save."""
        self.first_step = trainer.global_step
        votes = sum_over_ranks(trainer, {"stop": self.stop_vote.cast(trainer.strategy.root_device)})["stop"]
        self._decide(trainer, StopVotes(*votes.tolist()))

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        self._decide(trainer, result.votes)
        if self.reason is not None and trainer.is_global_zero and result.step < trainer.max_steps:
            print(f"{self.reason}: ending after step {result.step}; saving.", file=sys.stderr, flush=True)

    def check(self, trainer: pl.Trainer) -> None:
        """Call after training.

        Raises:
            Preempted: training ended before the last step.
        """
        step = trainer.global_step
        if self.reason is None or step >= trainer.max_steps:
            return
        if step == self.first_step:
            where = f"step {step + 1} of {trainer.max_steps}, the first of this start"
            raise Preempted(
                f"{self.reason}: ended before {where}, and saved nothing; the same command starts it again."
            )
        raise Preempted(
            f"{self.reason}: saved at step {step} of {trainer.max_steps} and ended; "
            "the same command with resume=auto resumes it."
        )

    def _decide(self, trainer: pl.Trainer, votes: StopVotes) -> None:
        if self.reason is None and votes.num_asked:
            self.reason = f"SIGTERM, SIGUSR1 or Ctrl-C on {votes.num_asked:.0f} of {trainer.world_size} ranks"
        elif self.reason is None and votes.num_late:
            self.reason = f"run.time_limit_seconds={self.stop_vote.limit_seconds:g}"
        if self.reason is not None:
            trainer.should_stop = True


def disable_lightning_signals(trainer: pl.Trainer) -> None:
    """Keep Lightning 2.6 from handling signals, for which it has no option.

    It would answer SIGTERM with an exception within a step, and for that let rank 0 broadcast before every micro-batch
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
