"""Trains in one process: ``mythos train`` and ``mythos.train``, from a frozen configuration to the result."""

import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from mythos.account.recipes import toy_settings
from mythos.config import foreign
from mythos.config.base import ConfigError
from mythos.config.exit_status import EndedEarly, LostPeer
from mythos.config.os_errors import is_of_files, sentence
from mythos.config.run import RunConfig
from mythos.parallel.launcher import check_launcher, die_with_launcher, is_first_rank, is_launched
from mythos.parallel.stopping import StopRequest, stop_request, sudden_interrupts
from mythos.parallel.watchdog import FOLDER, Watchdog, watched
from mythos.terminal import plain_output
from mythos.train.remat import resolve_remat
from mythos.train.run_directory import RunDirectory, lock, prepare


class TrainingResult(NamedTuple):
    """A run that reached its last step."""

    path: Path
    """The run's directory."""
    losses: dict[int, float]
    """Last held-out loss by number of loops, in nats per token; empty if a resumed run had already ended."""


def start(config: RunConfig) -> int:
    """Train, print the result on rank 0, and return the exit status (``mythos.config.exit_status``).

    Raises:
        ConfigError: the run cannot start, on every rank alike, or a file of it cannot be read or written.
    """
    try:
        with sudden_interrupts():
            result = train(config)
    except EndedEarly as error:
        if is_first_rank() or isinstance(error, LostPeer):
            print(f"mythos: {error}", file=sys.stderr, flush=True)
        return error.status
    if is_first_rank():
        for num_loops, loss in result.losses.items():
            print(f"held-out loss at T={num_loops}: {loss:.4f} nats per token")
        print(f"run directory: {result.path}")
    return 0


def train(config: RunConfig) -> TrainingResult:
    """Train in this process, from the start or, as ``resume`` specifies, from a checkpoint.

    Of several ranks, each calls it, in a process that a launcher has started. Call it from the main thread: SIGTERM,
    SIGUSR1 and the first SIGINT let the run save and stop; a second SIGINT raises KeyboardInterrupt.

    Raises:
        ConfigError: the run cannot start, on every rank alike, or a file of it cannot be read or written.
        EndedEarly: the run ended before its last step: it diverged, was asked to stop, or lost contact with a rank.
    """
    if config.run.max_restarts and not is_launched():
        raise ConfigError(
            f"run.max_restarts is {config.run.max_restarts}, but restarts need a launcher outside this process; set 0, "
            "or start the run with mythos train."
        )
    with plain_output():
        return _train_watched(config)


def _train_watched(config: RunConfig) -> TrainingResult:
    check_launcher(config.cluster)
    foreign.load(config)
    die_with_launcher()
    logs = Path(config.run.dir) / config.run.name / FOLDER
    train_here = _train_alone if config.cluster.world_size == 1 else _train_rank
    with stop_request() as request, watched(logs, config.run.stall_seconds) as watchdog:
        try:
            return train_here(config, request, watchdog)
        except OSError as error:
            if not is_of_files(error):
                raise
            raise ConfigError(f"run.dir: {sentence(error)}, and resume with resume=auto.") from error


def _train_alone(config: RunConfig, request: StopRequest, watchdog: Watchdog) -> TrainingResult:
    watchdog.beat("preparing the run's directory")
    config = _resolve(config)
    with lock(config):
        return _train(config, prepare(config), request, watchdog)


def _train_rank(config: RunConfig, request: StopRequest, watchdog: Watchdog) -> TrainingResult:
    from mythos.parallel.mesh import describe
    from mythos.parallel.processes import lost_peer, on_first_rank, process_group

    watchdog.beat("connecting to the other ranks")
    try:
        with process_group(config), ExitStack() as stack:
            watchdog.beat("preparing the run's directory")

            def prepare_alone() -> tuple[RunConfig, RunDirectory]:
                resolved = _resolve(config)
                stack.enter_context(lock(resolved))
                return resolved, prepare(resolved)

            resolved, directory = on_first_rank(prepare_alone)
            if is_first_rank():
                print(describe(resolved), flush=True)
            return _train(resolved, directory, request, watchdog)
    except RuntimeError as error:
        if (reason := lost_peer(error)) is None:
            raise
        raise LostPeer(
            f"rank {os.environ['RANK']} of {config.cluster.world_size} on {socket.gethostname()} lost contact with "
            f"another rank ({reason}); start the run again with resume=auto to resume from its last checkpoint."
        ) from error


def _resolve(config: RunConfig) -> RunConfig:
    """Resolve what depends on this machine's device, and warn of a large model with the settings of a toy."""
    from mythos.parallel.device import choose_accelerator

    resolved = resolve_remat(config)
    if sentence := toy_settings(config, is_gpu=choose_accelerator(config.parallel.device) == "gpu"):
        print(f"warning: {sentence}", file=sys.stderr, flush=True)
    return resolved


def _train(config: RunConfig, directory: RunDirectory, request: StopRequest, watchdog: Watchdog) -> TrainingResult:
    num_steps, manifest = config.run.num_steps, directory.manifest
    is_finished = manifest is not None and manifest.step == num_steps
    if is_first_rank() and is_finished:
        print(f"already at {num_steps} of {num_steps} steps: {directory.checkpoint}; raise run.num_steps to continue.")
    elif is_first_rank() and manifest is not None:
        print(f"resuming from {directory.checkpoint} (step {manifest.step})")
    if is_finished and config.run.checkpoint.copy_to is None:  # else checkpoints without a copy are copied
        return TrainingResult(directory.path, {})

    watchdog.beat("building the model")
    from mythos.train import build

    return TrainingResult(directory.path, build.train(config, directory, request, watchdog))
