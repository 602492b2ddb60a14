"""The LightningModule: one training step, the optimiser, and what callbacks read and move of the model."""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mythos.config.parallel import shares_weights
from mythos.config.parts import Part, parts_of
from mythos.config.run import RunConfig
from mythos.layers.attention_part import gate_figures
from mythos.layers.shared import share, unshare
from mythos.loop.plan import plan_step
from mythos.losses.objective import objective
from mythos.losses.terms import load_terms
from mythos.model.mythos import Mythos
from mythos.moe.balance import BalanceRule, bucket_loops, updated_bias
from mythos.moe.router import Router
from mythos.optim.build import build_optimizer, build_scheduler, set_schedule
from mythos.optim.groups import grouping
from mythos.optim.skippable import SkippableStep
from mythos.parallel.device import autocast
from mythos.parallel.gradients import sample_weights, squared_norms, trained_names
from mythos.parallel.partition import partition_of, whole
from mythos.types import Batch, Observation, Regularizers, RouterStats


class MythosModule(pl.LightningModule):
    """Draws a loop count, runs the model and computes the loss; ``training_step`` returns what it observes."""

    def __init__(self, config: RunConfig, model: Mythos) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.terms = load_terms(config)
        weights = config.objective
        self.skippable: SkippableStep | None = None
        self.group_of = grouping(config.model)
        self.shares_weights = shares_weights(config.parallel)
        self.regularizers = Regularizers(
            consistency=weights.consistency > 0,
            num_power_iterations=weights.num_power_iterations if weights.jacobian else 0,
        )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let all loops share bf16 weight copies and gradient accumulators."""
        if self.shares_weights:
            share(self.model)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the weight copies, since the weights are about to change."""
        unshare(self.model)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return loss and observation of one micro-batch; the loop count is drawn for the step or for each sequence."""
        config, step = self.config, self.trainer.global_step
        is_last = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        trace = is_last and (step + 1) % config.telemetry.trace_every == 0
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
            loss = objective(config, output, batch, plan, self.terms)
        stats = output.router_stats
        # Lightning divides by the number of micro-batches, but the loss is a share of the step's already.
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
    def evaluate_loops(
        self, batch: Batch, num_loops: tuple[int, ...], num_power_iterations: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Run one forward without noise.

        Args:
            num_loops: ascending loop counts.
            num_power_iterations: for the growth of a small change of the last state over one more loop; 0 for none.

        Returns:
            Summed negative log-likelihood in nats at each loop count, ``[X]``, and the squared growth, ``[B]`` or None.
        """
        with autocast(self.config.parallel.precision, self.device):
            output = self.model(
                batch,
                num_loops[-1],
                0,
                exits=tuple(count - 1 for count in num_loops),
                regularizers=Regularizers(num_power_iterations=num_power_iterations),
            )
        return output.nll_XBS.sum((1, 2)), output.jacobian_growth_B

    @torch.no_grad()
    def part_figures(self) -> dict[str, Tensor]:
        """Figures of the injection and the loop parts, by the names of their metrics; every rank calls it."""
        figures: dict[str, Tensor] = {}
        for part in parts_of(self.config.model):
            module = self.model.get_submodule(part.prefix)
            with whole(module):
                of_part: dict[str, Tensor] = module.figures()  # type: ignore[operator]
            if part.spec.attention_build is not None:
                of_part |= gate_figures(self._gate_sizes(part))
            figures |= {f"{part.spec.family}/{name}": value for name, value in of_part.items()}
        return figures

    def _gate_sizes(self, part: Part) -> Iterator[Tensor]:
        """Absolute gates of a part inside the attention of each block."""
        for prefix in part.attention_prefixes(self.config.model):
            module = self.model.get_submodule(prefix)
            with whole(module):
                gates = module.gates()  # type: ignore[operator]
                if gates is not None:
                    yield gates.abs()

    def squared_gradient_norms(self) -> dict[str, Tensor]:
        """Squared norm of the complete, unclipped gradient of each parameter group, equal on all ranks."""
        return squared_norms(self.trainer, self)

    def sampled_weights(self) -> dict[str, list[Tensor]]:
        """Copies of evenly spaced weights of this rank's pieces of the trained parameters, by group."""
        partition = partition_of(self, self.trainer.strategy.optimizers[0])
        return sample_weights(partition, trained_names(self.model), self.group_of)

    @property
    def is_skipping(self) -> bool:
        """Whether the optimiser does not move in the present step."""
        return self.skippable is not None and not self.skippable.is_open

    def skip_update(self, is_skipped: bool) -> None:
        """Let the optimiser skip the present step, or take it."""
        assert self.skippable is not None
        self.skippable.is_open = not is_skipped

    def count_margins(self, num_bins: int) -> None:
        """Let the routers count the margins of selection in training, in this number of bins; 0 for not at all."""
        for router in self.model.modules():
            if isinstance(router, Router):
                router.num_bins = num_bins

    @torch.no_grad()
    def move_router_bias(self, rule: BalanceRule, stats: Sequence[RouterStats], copy_last: bool) -> Tensor:
        """Move the router bias by the statistics of a step.

        Args:
            stats: of each micro-batch of this rank, ``[T, L, ...]``; T may differ between them.
            copy_last: whether rows of loops that did not run move as the deepest one that did.

        Returns:
            The bias, ``[L, max_loops, E]``.
        """
        bias_LRE = self.model.core.router_bias
        counts_LRE = self._totals([one.counts_E for one in stats])
        move_LRE = rule.move(counts_LRE, self._totals([one.margins_EQ for one in stats]))
        bias_LRE.copy_(updated_bias(bias_LRE, move_LRE, counts_LRE, copy_last))
        return bias_LRE

    def _totals(self, counts: Sequence[Tensor]) -> Tensor:
        """Return the sum over micro-batches and ranks of ``[T, L, ...]``, by the rows of the per-loop tables."""
        num_rows = self.model.core.router_bias.shape[1]
        totals_LR = reduce(torch.add, (bucket_loops(each, num_rows) for each in counts))
        return self.trainer.strategy.reduce(totals_LR, reduce_op="sum") if totals_LR.numel() else totals_LR

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
        """Allow the number of micro-batches in a step to change: Lightning counts micro-batches, a run counts steps."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        num_batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        shift = num_batches - progress["current"]["ready"]
        for counts in (progress["total"], progress["current"]):
            counts |= {name: count + shift for name, count in counts.items()}

    def on_train_start(self) -> None:
        """Set the configured learning rates at the present step, which a resumed run may have changed."""
        scheduler = self.trainer.lr_scheduler_configs[0].scheduler
        assert isinstance(scheduler, LambdaLR)
        set_schedule(scheduler, self.trainer.global_step)

    def configure_optimizers(self) -> Any:
        """Build the optimiser and its schedule, which advances once per optimiser step."""
        optimizer = build_optimizer(self.config.optim, _trained(self.model), self.group_of)
        self.skippable = SkippableStep(optimizer)
        scheduler = build_scheduler(optimizer, self.config.schedule, self.config.run.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _trained(model: Mythos) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Parameters that are not frozen, with their names."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
