"""The composition root: from a frozen configuration to a trained run."""

import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from mythos.config.halting import PonderHalting
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig
from mythos.data.datamodule import TokenDataModule
from mythos.eval.restore import load_weights
from mythos.loop.remat import remat_of
from mythos.model.init import initialize
from mythos.model.mythos import Mythos
from mythos.parallel.device import choose_accelerator
from mythos.parallel.single import SingleStrategy
from mythos.parallel.stopping import StopRequest
from mythos.parallel.threads import take_threads
from mythos.parallel.watchdog import Watchdog
from mythos.train.callbacks import Callbacks, build_callbacks
from mythos.train.module import MythosModule
from mythos.train.provenance import threads_before
from mythos.train.run_directory import RunDirectory
from mythos.train.tracking import build_loggers, close


def train(
    config: RunConfig,
    directory: RunDirectory,
    request: StopRequest | None = None,
    watchdog: Watchdog | None = None,
) -> dict[int, float]:
    """Train to the last step, from the start or from the directory's checkpoint.

    Args:
        request: asks the run to stop before its last step; None never asks.
        watchdog: receives heartbeats; None is a watchdog that never acts.

    Returns:
        The last held-out loss in nats per token, by loop count.

    Raises:
        Preempted: the run was saved and stopped before its last step, by ``request`` or a time limit.
    """
    if config.cluster.num_threads is not None:
        torch.set_num_threads(config.cluster.num_threads)
    else:
        before = None if directory.manifest is None else threads_before(directory.path)
        take_threads("cluster.num_threads", before)
    model = build_model(config, directory.origin)
    failed = tuple((step.start, step.end) for step in directory.skipped)
    data_config = replace(config.data, skipped=(*config.data.skipped, *failed))
    data = TokenDataModule(data_config, config.run.seed, config.run.validation.num_batches)
    callbacks = build_callbacks(
        config, directory, data, request or StopRequest(), watchdog or Watchdog(directory.path, None)
    )
    trainer = build_trainer(config, directory, callbacks)
    try:
        with warnings.catch_warnings():
            # The data module restores its own position, and validation is a callback of this package.
            warnings.filterwarnings("ignore", message=".*not resumable.*")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*no `validation_step`.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.13
            # The engine clips by the configured norm, and calls collectives by names that torch has renamed.
            warnings.filterwarnings("ignore", message=".*handles gradient clipping internally.*")
            warnings.filterwarnings("ignore", message=".*torch.distributed.* is deprecated.*")
            trainer.fit(
                MythosModule(config, model),
                datamodule=data,
                ckpt_path=directory.checkpoint,
            )
    except SystemExit:
        if trainer.interrupted:  # Lightning turns Ctrl-C into an exit
            raise KeyboardInterrupt from None
        raise
    finally:
        close(trainer.loggers)
    callbacks.preemption.check(trainer)
    return callbacks.validation.latest


def build_model(config: RunConfig, origin: Path | None = None) -> Mythos:
    """Build the model; its initial values depend only on the seed or, if given, on the checkpoint ``origin``."""
    model = Mythos(config.model, config.halting)
    initialize(model, config.model, config.run.seed)
    if origin is not None:
        load_weights(model, origin)
    model.core.remat = remat_of(config.parallel)
    if config.parallel.state_precision == "bf16":
        model.state_dtype = torch.bfloat16
    if isinstance(config.halting, PonderHalting) and config.halting.train == "gate":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("halting."))
    return model


def build_trainer(config: RunConfig, directory: RunDirectory, callbacks: Callbacks) -> pl.Trainer:
    """Build Lightning's trainer with the run's callbacks and trackers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Lightning takes it from SLURM's variables, of a job in which this run may be one of several.
    rank_zero_only.rank = int(os.environ.get("RANK", "0"))  # type: ignore[attr-defined]
    is_sharded = isinstance(config.parallel, DeepSpeedParallel)
    trainer = pl.Trainer(
        strategy=build_strategy(config),
        plugins=[TorchElasticEnvironment() if config.cluster.world_size > 1 else LightningEnvironment()],
        accelerator=choose_accelerator(config.parallel.device),
        devices=config.cluster.num_devices,
        num_nodes=config.cluster.num_nodes,
        max_steps=config.run.num_steps,
        accumulate_grad_batches=config.num_micro_batches,
        gradient_clip_val=None if is_sharded else config.optim.clip_norm,  # the engine clips itself
        callbacks=callbacks.ordered,
        logger=build_loggers(config, directory.path, directory.manifest.step if directory.manifest else 0),
        profiler=callbacks.loader_clock,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    load_only_given_checkpoint(trainer)
    return trainer


def load_only_given_checkpoint(trainer: pl.Trainer) -> None:
    """Keep Lightning 2.6 from a search of its own, for which it has no option.

    Where nothing is resumed it would look for SLURM, advise to start the command with ``srun``, and load a file
    ``hpc_ckpt_*.ckpt`` of the working directory.
    """

    def given(state: Any, path: Path | None, **_: bool) -> Path | None:
        return path

    connector = trainer._checkpoint_connector
    assert hasattr(connector, "_select_ckpt_path")
    connector._select_ckpt_path = given  # type: ignore[method-assign, assignment]


def build_strategy(config: RunConfig) -> Strategy:
    """Build the strategy that places the model on its devices."""
    if isinstance(config.parallel, DeepSpeedParallel):
        from mythos.parallel.zero import ZeroStrategy  # deepspeed is optional

        return ZeroStrategy(config)
    device = torch.device("cuda", 0) if choose_accelerator(config.parallel.device) == "gpu" else torch.device("cpu")
    return SingleStrategy(config.parallel, device)
