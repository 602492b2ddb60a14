"""The callbacks of a training run, in the one order in which they act."""

from dataclasses import dataclass

import lightning.pytorch as pl

from mythos.callbacks.alarms import Alarms
from mythos.callbacks.attempts import Attempts
from mythos.callbacks.base import StepCallback
from mythos.callbacks.checkpointing import Checkpointing
from mythos.callbacks.data_position import DataPosition
from mythos.callbacks.guard import Guard
from mythos.callbacks.loader_clock import LoaderClock
from mythos.callbacks.loop_telemetry import LoopTelemetry
from mythos.callbacks.metrics import MetricsWriter
from mythos.callbacks.preemption import Preemption
from mythos.callbacks.profiler import ProfileWindow
from mythos.callbacks.progress import Progress
from mythos.callbacks.router_balance import RouterBalance
from mythos.callbacks.run_record import RunRecord
from mythos.callbacks.step_profiler import StepProfiler
from mythos.callbacks.steps import Steps
from mythos.callbacks.stop_vote import StopVote
from mythos.callbacks.stragglers import Stragglers
from mythos.callbacks.throughput import Throughput
from mythos.callbacks.validation import Validation
from mythos.callbacks.watchdog import Heartbeat
from mythos.config.balance import NoBalance
from mythos.config.halting import PonderHalting
from mythos.config.model import DenseConfig
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig
from mythos.data.datamodule import TokenDataModule
from mythos.moe.balance import balance_rule
from mythos.parallel.stopping import StopRequest
from mythos.parallel.watchdog import Watchdog
from mythos.train.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Callbacks:
    """The list for the trainer, its profiler, and the two that are read after training."""

    ordered: list[pl.Callback]
    loader_clock: LoaderClock
    preemption: Preemption
    validation: Validation


def build_callbacks(
    config: RunConfig, directory: RunDirectory, data: TokenDataModule, request: StopRequest, watchdog: Watchdog
) -> Callbacks:
    """Build the callbacks. None holds another: they share the ``StepResult`` and what is built here first."""
    run, num_steps, batch_size = config.run, config.run.num_steps, config.data.batch_size
    metrics = MetricsWriter(data, config.data.seq_len)
    stop_vote, loader_clock, profiler = StopVote(run, request), LoaderClock(), StepProfiler()
    preemption = Preemption(stop_vote)
    validation = Validation(run.validation, data, metrics, num_steps)
    ordered: list[pl.Callback] = [
        # The watchdog learns what begins before anything of it can hang.
        Heartbeat(watchdog),
        # Calls the step methods of all others.
        Steps(stop_vote, profiler),
        # Metrics carry the number of tokens, so the data position comes before everything that writes.
        DataPosition(data, batch_size),
        # What the callbacks below do is no part of the step: if they fail, its data are not at fault.
        Attempts(directory.path, data, batch_size, metrics, directory.skipped),
        # A rollback restores weights and moments before anything measures, evaluates or saves them.
        Guard(run.guard, metrics, directory.checkpoints),
        preemption,
        # Validation and checkpoints see the bias that the next step uses.
        *_router_balance(config),
        # Waits for the device, so what follows in a record step is measured on an idle one.
        RunRecord(config.tracking, metrics, num_steps, config.depth.max_loops),
        # Ends its measurement before the slower callbacks below run.
        Throughput(config, metrics, loader_clock),
        Stragglers(config, metrics, loader_clock),
        # Writing a profile takes seconds that no throughput counts.
        ProfileWindow(config.tracking, directory.path, num_steps, profiler),
        LoopTelemetry(config, metrics, directory.path),
        # Judge the training metrics and the telemetry of the same step.
        Alarms(config, metrics),
        validation,
        # Shows the training metrics, the speed and the held-out loss of the same step.
        Progress(num_steps),
        # Saves what all others have done.
        Checkpointing(
            config,
            directory.checkpoints,
            data,
            directory.data_fingerprint,
            directory.run_id,
            stop_vote,
            watchdog.beat,
        ),
    ]
    return Callbacks(ordered=ordered, loader_clock=loader_clock, preemption=preemption, validation=validation)


def _router_balance(config: RunConfig) -> list[StepCallback]:
    """One callback; none where nothing is to be balanced, with balance=none, or where only the halting gate trains."""
    balance, experts = config.balance, config.model.core_ffn
    trains_model = not isinstance(config.halting, PonderHalting) or config.halting.train == "all"
    if isinstance(balance, NoBalance) or isinstance(experts, DenseConfig) or not trains_model:
        return []
    if experts.num_active == experts.num_experts:
        return []
    check_every = config.parallel.check_every if isinstance(config.parallel, DeepSpeedParallel) else 1
    return [RouterBalance(balance_rule(balance, experts), balance.unused_loops == "copy_last", check_every)]
