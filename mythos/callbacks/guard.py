"""Skips harmful steps on all ranks alike; many skips cause a rollback, and many rollbacks end the run."""

from collections import Counter, deque
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from mythos.callbacks.base import StepCallback, StepGradients, StepResult
from mythos.callbacks.metrics import MetricsWriter, announce
from mythos.checkpoint import store
from mythos.config import records
from mythos.config.exit_status import Diverged
from mythos.config.guard import GuardConfig
from mythos.optim.spikes import Verdict, judge
from mythos.parallel.processes import on_first_rank


class Guard(StepCallback):
    """Judges each step by its loss and gradient norm over all ranks, before the optimiser moves.

    A skipped step advances the schedule and the data, and neither weights nor moments nor the router bias. After too
    many of them a rollback loads weights and moments of the last checkpoint before the first; the data in between are
    skipped and the schedule continues, as in PaLM (arXiv 2204.02311, section 5.1).
    """

    def __init__(self, config: GuardConfig, metrics: MetricsWriter, checkpoints: Path) -> None:
        self.config = config
        self.metrics = metrics
        self.checkpoints = checkpoints
        self.losses: deque[float] = deque(maxlen=config.window)
        self.grad_norms: deque[float] = deque(maxlen=config.window)
        self.skips: list[tuple[int, str]] = []
        """Step and reason of every skipped step since the run began, or since the last rollback."""
        self.rollbacks: list[tuple[int, int]] = []
        """Step of each rollback, and the step of the checkpoint that was loaded."""
        self.verdict: Verdict | None = None
        """Why the present step is skipped; None if it is taken."""

    def on_before_update(self, trainer: pl.Trainer, module: Any, gradients: StepGradients) -> None:
        self.verdict = judge(gradients.loss, gradients.norm, self.losses, self.grad_norms, self.config)
        module.skip_update(self.verdict is not None)
        if self.verdict is None:
            self.losses.append(gradients.loss)
            self.grad_norms.append(gradients.norm)

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        if self.verdict is None:
            return
        step = result.step
        self.skips.append((step, self.verdict.reason))
        self._report_skip(trainer, step, self.verdict)
        recent = [skipped for skipped, _ in self.skips if skipped > step - self.config.window]
        if len(recent) >= self.config.max_skips:
            self._roll_back(trainer, step, recent[0])

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

    def _report_skip(self, trainer: pl.Trainer, step: int, verdict: Verdict) -> None:
        self.metrics.write(trainer, {records.guard(verdict.reason): 1.0, records.GUARD_FIGURE: verdict.figure}, step)
        limit = f", above {verdict.limit:.4g}" if verdict.reason != "not_finite" else ""
        announce(trainer, "guard", f"{verdict.reason} at step {step}", f"step skipped: {verdict.figure:.4g}{limit}.")

    def _roll_back(self, trainer: pl.Trainer, step: int, first_skip: int) -> None:
        newest = on_first_rank(lambda: store.newest(self.checkpoints, before_step=first_skip))
        if newest is None or len(self.rollbacks) == self.config.max_rollbacks:
            raise Diverged(self._diagnosis(step, newest is None))
        path, manifest = newest
        trainer.strategy.load_checkpoint(path)
        target = manifest.step
        self.rollbacks.append((step, target))
        self.metrics.write(trainer, {records.guard("rollback"): 1.0, records.GUARD_FIGURE: float(target)}, step)
        announce(
            trainer,
            "guard",
            f"rollback at step {step}",
            f"{len(self.skips)} steps were skipped; weights and moments are restored from step {target}, and the data "
            f"of steps {target + 1} to {step} are skipped.",
        )
        self.skips = []
        self.losses.clear()
        self.grad_norms.clear()

    def _diagnosis(self, step: int, has_no_checkpoint: bool) -> str:
        counts = Counter(reason for _, reason in self.skips)
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        outcome = "there is no earlier checkpoint" if has_no_checkpoint else "rollbacks have not helped"
        rollbacks = "".join(f"; rolled back at step {at} to step {target}" for at, target in self.rollbacks)
        return (
            f"the run diverges: {len(self.skips)} steps were skipped from step {self.skips[0][0]} to step {step} "
            f"({reasons}){rollbacks}; {outcome}. Look at the loss, the gradient norms and the state norms before step "
            f"{self.skips[0][0]} (mythos report), then lower optim.lr, lengthen schedule.num_warmup_steps, or raise "
            "run.guard.sigmas if the steps were valid."
        )
