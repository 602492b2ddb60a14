"""Progress of a run from rank 0: a bar on a terminal, lines of text elsewhere."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

from mythos.callbacks.base import Metrics, StepCallback, StepResult
from mythos.config import records


class Progress(StepCallback):
    """Shows loss, held-out loss, tokens/s, MFU, mean number of loops and the time left."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.held_out: tuple[int, float] | None = None
        """Largest number of loops of the last validation, and the loss there."""
        self.bar: tqdm | None = None
        self.first_step = 0
        self.start_time = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_step, self.start_time = trainer.global_step, time.monotonic()
        if sys.stderr.isatty() and trainer.is_global_zero:
            layout = "{desc} {percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
            self.bar = tqdm(
                total=self.num_steps,
                initial=self.first_step,
                desc="training",
                bar_format=layout,
                dynamic_ncols=True,
            )

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> None:
        step = result.step
        if result.validation is not None:
            self.held_out = max(result.validation.items())
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
        if result.training is None:
            return
        facts = self._facts(result.training, result.speed or {})
        if self.bar is not None:
            self.bar.set_postfix_str(facts, refresh=False)
        elif trainer.is_global_zero:
            pace = (time.monotonic() - self.start_time) / (step - self.first_step)
            left = tqdm.format_interval(pace * (self.num_steps - step))
            print(f"step {step}/{self.num_steps}  {facts}, {left} left", file=sys.stderr, flush=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def _facts(self, training: Metrics, speed: Metrics) -> str:
        facts = [f"loss {training[records.TRAIN_LOSS]:.3f}"]
        if self.held_out is not None:
            facts.append("held-out {1:.3f} at T={0}".format(*self.held_out))
        if records.TOKENS_PER_SECOND in speed:
            facts.append(f"{speed[records.TOKENS_PER_SECOND]:,.0f} tokens/s")
        if records.MFU in speed:
            facts.append(f"MFU {speed[records.MFU]:.1%}")
        return ", ".join([*facts, f"mean depth {training[records.MEAN_LOOPS]:.1f}"])

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
