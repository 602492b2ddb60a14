"""Starts one process for each device and waits for them, without torch in the launcher."""

import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from mythos.config.base import ConfigError
from mythos.config.cluster import ClusterConfig
from mythos.config.exit_status import LOST_PEER, PREEMPTED
from mythos.parallel.parent import die_with_parent
from mythos.parallel.stopping import STARTED_AT, STOP_SIGNALS, handled, print_interrupted

_LAUNCHER = "MYTHOS_LAUNCHER"
"""Environment variable: process ID of the launcher of this rank."""
_PARENT = os.getppid()
"""The parent when this module was imported; stands for a launcher that does not give its process ID."""
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 30.0
"""Time for the other ranks to end after one has failed; torchrun allows the same."""
_NODE = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that launchers of several nodes need: the node's number, and the address of rank 0."""
_COUNTS = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK NODE_RANK MASTER_PORT SLURM_NTASKS".split()
"""Environment variables of launchers that are whole numbers."""


class ReportedByRankZero(ConfigError):
    """An error of rank 0 that every rank raises; only rank 0 prints it."""


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return "RANK" in os.environ


def is_first_rank() -> bool:
    """Whether this process is rank 0, which reports for the run."""
    return os.environ.get("RANK", "0") == "0"


def launch(cluster: ClusterConfig, arguments: list[str], started_at: float) -> int:
    """Start ``mythos`` with these arguments once for each device of this machine, and wait for all.

    SIGTERM and SIGUSR1 are forwarded to the ranks, which save and end, without a time limit. So is the first SIGINT, as
    SIGTERM; the second kills the ranks.

    Args:
        started_at: time on the machine's monotonic clock from which the run's time limit counts.

    Returns:
        The exit status of the rank that failed first, 128 + n if signal n killed it, or 0.

    Raises:
        ConfigError: the run spans nodes, and the number of this node is not set.
        KeyboardInterrupt: SIGINT was received twice; the ranks have ended.
    """
    signals: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number not in signals:
            print_interrupted()
        signals.append(number)

    ranks: list[subprocess.Popen] = []
    with handled((*STOP_SIGNALS, signal.SIGINT), record):
        try:
            for environment in rank_environments(cluster, started_at):
                # In a process group of their own, so that Ctrl-C reaches the launcher only.
                command = [sys.executable, "-m", "mythos.cli.main", *arguments]
                ranks.append(subprocess.Popen(command, env=environment, process_group=0))
            status = _wait(ranks, signals)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    if _is_interrupted_again(signals):
        raise KeyboardInterrupt
    # A rank that was asked to stop before it had installed its handler has nothing to save.
    was_asked_to_stop = any(status == 128 + _forwarded(number) for number in signals)
    return PREEMPTED if was_asked_to_stop else status


def _forwarded(number: int) -> int:
    """The signal that the ranks receive for one that the launcher received."""
    return signal.SIGTERM if number == signal.SIGINT else number


def _is_interrupted_again(signals: list[int]) -> bool:
    return signals.count(signal.SIGINT) > 1


def rank_environments(cluster: ClusterConfig, started_at: float) -> list[dict[str, str]]:
    """Return the environment of each rank of this machine, with the variables that torchrun also sets.

    Raises:
        ConfigError: the run spans nodes, and the number of this node is not set, or a variable is no number.
    """
    _check_counts()
    shared = os.environ | {STARTED_AT: str(started_at), _LAUNCHER: str(os.getpid())}
    if cluster.num_nodes == 1:
        shared |= {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    elif missing := [name for name in _NODE if name not in shared]:
        raise ConfigError(
            f"cluster.num_nodes is {cluster.num_nodes} but {', '.join(missing)} are not set: start the command on each "
            f"node with NODE_RANK=0, 1, ..., MASTER_ADDR=FIRST_NODE and MASTER_PORT=PORT, or torchrun --nnodes "
            f"{cluster.num_nodes} --node-rank 0, 1, ... --nproc-per-node {cluster.num_devices} "
            "--master-addr FIRST_NODE --master-port PORT -m mythos.cli.main train ...; python launch/submit.py does it "
            "for a list of hosts, SLURM or Kubernetes."
        )
    if cluster.num_devices > 1:
        shared.setdefault("OMP_NUM_THREADS", "1")
    first = int(shared["NODE_RANK"]) * cluster.num_devices
    return [
        shared
        | {
            "RANK": str(first + local_rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(cluster.world_size),
            "LOCAL_WORLD_SIZE": str(cluster.num_devices),
            "GROUP_RANK": shared["NODE_RANK"],
        }
        for local_rank in range(cluster.num_devices)
    ]


def _wait(ranks: list[subprocess.Popen], signals: list[int]) -> int:
    """Wait for all ranks; after one has failed, the others have a grace period. Returns the status of the cause."""
    num_forwarded, waited_seconds = 0, 0.0
    failures: dict[int, int] = {}
    while running := [rank for rank in ranks if rank.poll() is None]:
        for number in signals[num_forwarded:]:
            for rank in running:
                rank.send_signal(_forwarded(number))
            num_forwarded += 1
        if _is_interrupted_again(signals):
            break
        failures = _failures(ranks, failures)
        has_failed = any(status != PREEMPTED for status in failures.values())  # a preempted rank lets others save
        if waited_seconds > _GRACE_SECONDS:
            _show_stacks(running)
            break
        time.sleep(_POLL_SECONDS)
        if has_failed:
            waited_seconds += _POLL_SECONDS  # not by the clock, which continues while the job is suspended
    statuses = list(_failures(ranks, failures).values())
    return next((status for status in statuses if status != LOST_PEER), statuses[0] if statuses else 0)


def _show_stacks(running: list[subprocess.Popen]) -> None:
    """Make ranks that do not end print their stacks before they are killed."""
    print(f"mythos: {len(running)} ranks have not ended with the others; their stacks:", file=sys.stderr, flush=True)
    for rank in running:
        rank.send_signal(signal.SIGQUIT)
        time.sleep(_POLL_SECONDS)


def _failures(ranks: list[subprocess.Popen], before: dict[int, int]) -> dict[int, int]:
    """Return process and shell status of every rank that has failed; those of ``before`` come first."""
    codes = {rank.pid: rank.returncode for rank in ranks if rank.returncode}
    return before | {pid: code if code > 0 else 128 - code for pid, code in codes.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_launcher() -> None:
    """Have this rank killed with its launcher; otherwise it would continue beside the run that replaces it."""
    if is_launched():
        die_with_parent(int(os.environ.get(_LAUNCHER, _PARENT)))


def _check_counts() -> None:
    for name in _COUNTS:
        text = os.environ.get(name, "0")
        if not (text.isascii() and text.isdecimal()):
            raise ConfigError(f"{name} is {text!r}, but launchers set a whole number; correct or unset the variable.")


def check_launcher(cluster: ClusterConfig) -> None:
    """Check the number of processes that the launcher started against the configuration.

    Raises:
        ConfigError: the numbers differ, or a variable of the launcher is no number.
    """
    _check_counts()
    num_started = int(os.environ.get("WORLD_SIZE", "1"))
    if num_started != cluster.world_size:
        raise ConfigError(
            f"cluster: {cluster.num_nodes} nodes x {cluster.num_devices} devices are {cluster.world_size} processes, "
            f"but the launcher started {num_started}; set cluster.num_nodes and cluster.num_devices to what it starts."
        )
