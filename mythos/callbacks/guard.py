"""Steps that would hurt are skipped, on all ranks alike; a run that keeps hurting goes back, and then ends."""

from collections import Counter, deque
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mythos.callbacks.base import StepCallback
from mythos.callbacks.preemption import Preemption
from mythos.callbacks.ranks import sum_over_ranks
from mythos.callbacks.run_record import RunRecord, announce
from mythos.checkpoint import store
from mythos.config import records
from mythos.config.guard import GuardConfig
from mythos.optim.spikes import Verdict, judge
from mythos.parallel.gradients import squared_norms
from mythos.parallel.processes import on_first_rank


class Diverged(RuntimeError):
    """A run that skipping and going back could not save; the message is a diagnosis for the user."""


class Guard(StepCallback):
    """Judges each step by its loss and gradient norm over all ranks, before the optimiser moves.

    A skipped step advances the schedule and the data, and neither weights nor moments nor the router bias. Too many of
    them take weights and moments back to the last checkpoint before the first; the data in between are left out and
    the schedule goes on, as in PaLM (arXiv 2204.02311, section 5.1). The host waits for the device once a step.
    """

    def __init__(self, config: GuardConfig, record: RunRecord, checkpoints: Path, preemption: Preemption) -> None:
        self.config = config
        self.record = record
        self.checkpoints = checkpoints
        self.preemption = preemption
        self.losses: deque[float] = deque(maxlen=config.window)
        self.grad_norms: deque[float] = deque(maxlen=config.window)
        self.skips: list[tuple[int, str]] = []
        """Step and reason of every skipped step since the run began, or since it was last taken back."""
        self.rollbacks: list[tuple[int, int]] = []
        """Step at which the run was taken back, and the step of the checkpoint."""
        self.shares: list[Tensor] = []
        self.verdict: Verdict | None = None
        """Of the step that is being taken."""

    @property
    def is_skipping(self) -> bool:
        """Whether the step that is being taken is skipped."""
        return self.verdict is not None

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self.shares.append(loss.detach())

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        if len(self.shares) < trainer.accumulate_grad_batches:
            return  # an engine calls for every micro-batch
        # Ranks scale their losses by their number, and all know the whole gradient: both are means over ranks.
        parts = {"loss": torch.stack(self.shares).sum()}
        parts["square"] = torch.stack(list(squared_norms(trainer, pl_module).values())).sum()
        parts["stop"] = self.preemption.vote(trainer.strategy.root_device)
        sums = sum_over_ranks(trainer, parts)
        self.preemption.decide(trainer, sums["stop"])
        loss, square = ((sums[name] / trainer.world_size).item() for name in ("loss", "square"))
        self.verdict = judge(loss, square**0.5, self.losses, self.grad_norms, self.config)
        pl_module.gate.is_open = self.verdict is None
        if self.verdict is None:
            self.losses.append(loss)
            self.grad_norms.append(square**0.5)
        self.shares = []

    def on_step_end(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        if self.verdict is None:
            return
        self.skips.append((step, self.verdict.reason))
        self._say_skip(trainer, step, self.verdict)
        recent = [skipped for skipped, _ in self.skips if skipped > step - self.config.window]
        if len(recent) >= self.config.max_skips:
            self._go_back(trainer, step, recent[0])

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": list(self.losses),
            "grad_norms": list(self.grad_norms),
            "skips": self.skips,
            "rollbacks": self.rollbacks,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses.extend(state_dict["losses"])
        self.grad_norms.extend(state_dict["grad_norms"])
        self.skips = [(step, reason) for step, reason in state_dict["skips"]]
        self.rollbacks = [(step, target) for step, target in state_dict["rollbacks"]]

    def _say_skip(self, trainer: pl.Trainer, step: int, verdict: Verdict) -> None:
        self.record.write(trainer, {records.guard(verdict.reason): 1.0, records.GUARD_FIGURE: verdict.figure}, step)
        limit = f", above {verdict.limit:.4g}" if verdict.reason != "not_finite" else ""
        announce(trainer, f"{verdict.reason} at step {step}", f"step skipped: {verdict.figure:.4g}{limit}.")

    def _go_back(self, trainer: pl.Trainer, step: int, first_skip: int) -> None:
        found = on_first_rank(lambda: store.newest(self.checkpoints, before_step=first_skip))
        if found is None or len(self.rollbacks) == self.config.max_rollbacks:
            raise Diverged(self._diagnosis(step, found is None))
        path, manifest = found
        trainer.strategy.load_checkpoint(path)
        target = manifest.step
        self.rollbacks.append((step, target))
        self.record.write(trainer, {records.guard("rollback"): 1.0, records.GUARD_FIGURE: float(target)}, step)
        announce(
            trainer,
            f"rollback at step {step}",
            f"{len(self.skips)} steps were skipped; weights and moments are those of step {target} again, and the data "
            f"of steps {target + 1} to {step} are left out.",
        )
        self.skips = []
        self.losses.clear()
        self.grad_norms.clear()

    def _diagnosis(self, step: int, has_no_checkpoint: bool) -> str:
        counts = Counter(reason for _, reason in self.skips)
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        tried = "there is no checkpoint from before" if has_no_checkpoint else "going back has not helped"
        back = "".join(f"; taken back at step {at} to step {target}" for at, target in self.rollbacks)
        return (
            f"the run diverges: {len(self.skips)} steps were skipped from step {self.skips[0][0]} to step {step} "
            f"({reasons}){back}; {tried}. Look at the loss, the gradient norms and the state norms before step "
            f"{self.skips[0][0]} (mythos report), then lower optim.lr, lengthen schedule.num_warmup_steps, or raise "
            "run.guard.sigmas if the steps were sound."
        )
