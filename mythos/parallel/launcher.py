"""Starting one process for each device, and waiting for them. No torch, here or in the process that waits."""

import ctypes
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
from mythos.parallel.stopping import STARTED_AT, STOP_SIGNALS

_PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 30.0
"""For the other ranks to end by themselves once one has failed; torchrun gives as much."""
_NODE = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What the launchers of several nodes must be told: the node's number, and where rank 0 waits for all."""


class ReportedByRankZero(ConfigError):
    """An error of rank 0 that every rank shares; rank 0 says it."""


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return "RANK" in os.environ


def is_first_rank() -> bool:
    """Whether this process speaks for the run."""
    return os.environ.get("RANK", "0") == "0"


def launch(cluster: ClusterConfig, arguments: list[str], started_at: float) -> int:
    """Start ``mythos`` with these arguments once for each device of this machine, and wait for all.

    SIGTERM and SIGUSR1 are passed on to the ranks, which save and end; nothing then limits the time that they take.

    Args:
        started_at: on the machine's monotonic clock; the run's time limit counts from there.

    Returns:
        The exit status of the rank that failed first, 128 + n if signal n killed it, or 0.

    Raises:
        ConfigError: the run spans nodes, and nothing says which of them this is.
        KeyboardInterrupt: SIGINT came; the ranks have ended.
    """
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)

    before = {number: signal.signal(number, note) for number in (*STOP_SIGNALS, signal.SIGINT)}
    ranks = [
        # A group of their own: Ctrl-C reaches them through the launcher, once.
        subprocess.Popen([sys.executable, "-m", "mythos.cli.main", *arguments], env=environment, process_group=0)
        for environment in rank_environments(cluster, started_at)
    ]
    try:
        status = _wait(ranks, told)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in told:
        raise KeyboardInterrupt
    # A rank that was told before it could listen has nothing to save.
    was_asked_to_stop = any(status == 128 + number for number in told)
    return PREEMPTED if was_asked_to_stop else status


def rank_environments(cluster: ClusterConfig, started_at: float) -> list[dict[str, str]]:
    """The environment of each rank of this machine, with the variables that torchrun sets as well.

    Raises:
        ConfigError: the run spans nodes, and nothing says which of them this is.
    """
    shared = os.environ | {STARTED_AT: str(started_at)}
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


def _wait(ranks: list[subprocess.Popen], told: list[int]) -> int:
    """Until all ranks have ended; once one has failed, the others have a while to do so. Returns what was the cause."""
    num_passed_on, deadline = 0, float("inf")
    failures: dict[int, int] = {}
    while running := [rank for rank in ranks if rank.poll() is None]:
        for number in told[num_passed_on:]:
            for rank in running:
                rank.send_signal(number)
            num_passed_on += 1
        failures = _failures(ranks, failures)
        has_failed = any(status != PREEMPTED for status in failures.values())  # who was told to end saves in peace
        if (has_failed or signal.SIGINT in told) and deadline == float("inf"):
            deadline = time.monotonic() + _GRACE_SECONDS
        if time.monotonic() > deadline:
            _show_stacks(running)
            break
        time.sleep(_POLL_SECONDS)
    statuses = list(_failures(ranks, failures).values())
    return next((status for status in statuses if status != LOST_PEER), statuses[0] if statuses else 0)


def _show_stacks(running: list[subprocess.Popen]) -> None:
    """Let ranks that do not end say where they are, before they are killed."""
    print(f"mythos: {len(running)} ranks have not ended with the others; their stacks:", file=sys.stderr, flush=True)
    for rank in running:
        rank.send_signal(signal.SIGQUIT)
        time.sleep(_POLL_SECONDS)


def _failures(ranks: list[subprocess.Popen], before: dict[int, int]) -> dict[int, int]:
    """Process and status, as shells say it, of every rank that has failed; those of ``before`` stay in front."""
    codes = {rank.pid: rank.returncode for rank in ranks if rank.returncode}
    return before | {pid: code if code > 0 else 128 - code for pid, code in codes.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_launcher() -> None:
    """Have this rank killed when its launcher is, on Linux; it would go on alone, beside the run that replaces it."""
    if is_launched() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def check_launcher(cluster: ClusterConfig) -> None:
    """Hold what the launcher started against the configuration.

    Raises:
        ConfigError: it started another number of processes.
    """
    num_started = int(os.environ.get("WORLD_SIZE", "1"))
    if num_started != cluster.world_size:
        raise ConfigError(
            f"cluster: {cluster.num_nodes} nodes x {cluster.num_devices} devices are {cluster.world_size} processes, "
            f"but the launcher started {num_started}; set cluster.num_nodes and cluster.num_devices to what it starts."
        )
