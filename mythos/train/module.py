"""The LightningModule: one training step, and the optimiser."""

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mythos.config.parallel import shares_weights
from mythos.config.run import RunConfig
from mythos.layers.shared import share, unshare
from mythos.loop.plan import plan_step
from mythos.losses.objective import objective
from mythos.model.mythos import Mythos
from mythos.optim.build import build_optimizer, build_scheduler, set_schedule
from mythos.optim.skippable import SkippableStep
from mythos.parallel.device import autocast
from mythos.types import Batch, Observation, Regularizers, RouterStats


class MythosModule(pl.LightningModule):
    """Draws a depth, runs the model, weighs its output. What it sees leaves with ``training_step``'s result."""

    def __init__(self, config: RunConfig, model: Mythos) -> None:
        super().__init__()
        self.config = config
        self.model = model
        weights = config.objective
        self.shares_weights = shares_weights(config.parallel)
        self.regularizers = Regularizers(
            consistency=weights.consistency > 0,
            num_power_iterations=weights.num_power_iterations if weights.jacobian else 0,
        )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """All passes share bf16 copies of the weights and sums of their gradients."""
        if self.shares_weights:
            share(self.model)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The weights are about to change."""
        unshare(self.model)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Loss and observation of one micro-batch; depth is drawn once for the step, or for each sequence."""
        config, step = self.config, self.trainer.global_step
        is_last = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        trace = is_last and (step + 1) % config.tracking.trace_every == 0
        plan = plan_step(config, step, batch.sample_ids_B)
        with autocast(config.parallel.precision, self.device):
            output = self.model(
                batch,
                plan.depth.num_loops,
                plan.depth.num_grad_loops,
                exits=plan.exits.loops,
                trace=trace,
                noise_seed=config.run.seed,
                regularizers=self.regularizers,
                loops_B=plan.loops_B,
                damping=config.depth.damping,
            )
            loss = objective(config, output, batch, plan)
        stats = output.router_stats
        # Lightning divides by the number of micro-batches; the loss already is a share of the step's.
        return {
            "loss": loss.total * self.trainer.accumulate_grad_batches,
            "observation": Observation(
                *plan.mean_depth(),
                nll=loss.nll.detach(),
                penalties={name: term.detach() for name, term in loss.terms.items()},
                num_tokens=batch.tokens_BS.numel(),
                exit_prob_T=None if output.halting_TBS is None else output.halting_TBS.detach().mean((1, 2)),
                router_stats=None if stats is None else RouterStats(*(part.detach() for part in stats)),
                trace=output.trace,
                log_partition=output.lse_XBS[-1].detach().mean() if trace else None,
            ),
        }

    @torch.no_grad()
    def losses_by_depth(self, batch: Batch, depths: tuple[int, ...]) -> Tensor:
        """Summed negative log-likelihood at each of the ascending depths, from one forward without noise."""
        exits = tuple(depth - 1 for depth in depths)
        with autocast(self.config.parallel.precision, self.device):
            return self.model(batch, depths[-1], 0, exits=exits).nll_XBS.sum((1, 2))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the global norm; Lightning's own clipping refuses fused optimisers under mixed precision."""
        del optimizer, gradient_clip_algorithm
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the number of micro-batches in a step change: Lightning counts micro-batches, a run counts steps."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        num_batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        shift = num_batches - progress["current"]["ready"]
        for counts in (progress["total"], progress["current"]):
            counts |= {name: count + shift for name, count in counts.items()}

    def on_train_start(self) -> None:
        """After a resume the configuration's learning rates count, at the step that was reached."""
        scheduler = self.trainer.lr_scheduler_configs[0].scheduler
        assert isinstance(scheduler, LambdaLR)
        set_schedule(scheduler, self.trainer.global_step)

    def configure_optimizers(self) -> Any:
        """The optimiser and its schedule, advanced once per optimiser step."""
        optimizer = build_optimizer(self.config.optim, _trained(self.model))
        self.gate = SkippableStep(optimizer)
        scheduler = build_scheduler(optimizer, self.config.schedule, self.config.run.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _trained(model: Mythos) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The parameters that are not frozen."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
