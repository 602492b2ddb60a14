"""Runs ``mythos train`` in one process, from a frozen configuration to the exit status."""

import errno
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from mythos.config import foreign
from mythos.config.base import ConfigError
from mythos.config.exit_status import DIVERGED, LOST_PEER, PREEMPTED
from mythos.config.run import RunConfig
from mythos.parallel.launcher import check_launcher, die_with_launcher, is_first_rank
from mythos.parallel.stopping import StopRequest, stop_request
from mythos.parallel.watchdog import FOLDER, Watchdog, watched
from mythos.train.remat import resolve_remat
from mythos.train.run_directory import RunDirectory, lock, prepare


def start(config: RunConfig) -> int:
    """Train, print the result on rank 0, and return the exit status (``mythos.config.exit_status``).

    Raises:
        ConfigError: the run cannot start, on every rank alike, or the disk is full.
    """
    check_launcher(config.cluster)
    foreign.load(config)
    die_with_launcher()
    logs = Path(config.run.dir) / config.run.name / FOLDER
    start_here = _start_alone if config.cluster.world_size == 1 else _start_rank
    with stop_request() as request, watched(logs, config.run.stall_seconds) as watchdog:
        try:
            return start_here(config, request, watchdog)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ConfigError(f"run.dir: {error}; make room and resume with resume=auto.") from error


def _start_alone(config: RunConfig, request: StopRequest, watchdog: Watchdog) -> int:
    watchdog.beat("preparing the run's directory")
    config = resolve_remat(config)
    with lock(config):
        return _train(config, prepare(config), request, watchdog)


def _start_rank(config: RunConfig, request: StopRequest, watchdog: Watchdog) -> int:
    from mythos.parallel.mesh import describe
    from mythos.parallel.processes import lost_peer, on_first_rank, process_group

    watchdog.beat("connecting to the other ranks")
    try:
        with process_group(config), ExitStack() as stack:
            watchdog.beat("preparing the run's directory")

            def prepare_alone() -> tuple[RunConfig, RunDirectory]:
                resolved = resolve_remat(config)
                stack.enter_context(lock(resolved))
                return resolved, prepare(resolved)

            resolved, directory = on_first_rank(prepare_alone)
            if is_first_rank():
                print(describe(resolved), flush=True)
            return _train(resolved, directory, request, watchdog)
    except RuntimeError as error:
        if (reason := lost_peer(error)) is None:
            raise
        print(
            f"mythos: rank {os.environ['RANK']} of {config.cluster.world_size} on {socket.gethostname()} lost contact "
            f"with another rank ({reason}); start the run again with resume=auto to resume from its last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        return LOST_PEER


def _train(config: RunConfig, directory: RunDirectory, request: StopRequest, watchdog: Watchdog) -> int:
    if is_first_rank() and directory.manifest is not None:
        print(f"resuming from {directory.checkpoint} (step {directory.manifest.step})")

    watchdog.beat("building the model")
    from mythos.callbacks.guard import Diverged
    from mythos.callbacks.preemption import Preempted
    from mythos.train.build import train

    try:
        losses = train(config, directory, request, watchdog)
    except (Diverged, Preempted) as error:
        if is_first_rank():
            print(f"mythos: {error}", file=sys.stderr, flush=True)
        return DIVERGED if isinstance(error, Diverged) else PREEMPTED
    if is_first_rank():
        for num_loops, loss in losses.items():
            print(f"held-out loss at T={num_loops}: {loss:.4f} nats per token")
        print(f"run directory: {directory.path}")
    return 0
