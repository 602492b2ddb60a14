"""From a frozen configuration to a finished run: what ``mythos train`` does in each process."""

import os
import socket
import sys
from contextlib import ExitStack

from mythos.config.exit_status import DIVERGED, LOST_PEER, PREEMPTED
from mythos.config.run import RunConfig
from mythos.parallel.launcher import check_launcher, die_with_launcher, is_first_rank
from mythos.parallel.stopping import StopRequest, stop_request
from mythos.train.run_directory import RunDirectory, lock, prepare


def start(config: RunConfig) -> int:
    """Train, and say on rank 0 how it went; returns the exit status (``mythos.config.exit_status``).

    Raises:
        ConfigError: the run cannot start, on every rank alike.
    """
    check_launcher(config.cluster)
    die_with_launcher()
    with stop_request() as request:
        return _start_alone(config, request) if config.cluster.world_size == 1 else _start_rank(config, request)


def _start_alone(config: RunConfig, request: StopRequest) -> int:
    with lock(config):
        return _train(config, prepare(config), request)


def _start_rank(config: RunConfig, request: StopRequest) -> int:
    from mythos.parallel.mesh import describe
    from mythos.parallel.processes import lost_peer, on_first_rank, process_group

    try:
        with process_group(config), ExitStack() as stack:

            def prepare_alone() -> RunDirectory:
                stack.enter_context(lock(config))
                return prepare(config)

            directory = on_first_rank(prepare_alone)
            if is_first_rank():
                print(describe(config), flush=True)
            return _train(config, directory, request)
    except RuntimeError as error:
        if (reason := lost_peer(error)) is None:
            raise
        print(
            f"mythos: rank {os.environ['RANK']} of {config.cluster.world_size} on {socket.gethostname()} lost contact "
            f"with another rank ({reason}); start the run again with resume=auto to go on from its last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        return LOST_PEER


def _train(config: RunConfig, directory: RunDirectory, request: StopRequest) -> int:
    if is_first_rank() and directory.manifest is not None:
        print(f"going on from {directory.checkpoint} (step {directory.manifest.step})")

    from mythos.callbacks.guard import Diverged
    from mythos.callbacks.preemption import Preempted
    from mythos.train.build import train

    try:
        losses = train(config, directory, request)
    except (Diverged, Preempted) as error:
        if is_first_rank():
            print(f"mythos: {error}", file=sys.stderr, flush=True)
        return DIVERGED if isinstance(error, Diverged) else PREEMPTED
    if is_first_rank():
        for depth, loss in losses.items():
            print(f"held-out loss at T={depth}: {loss:.4f} nats per token")
        print(f"run directory: {directory.path}")
    return 0
