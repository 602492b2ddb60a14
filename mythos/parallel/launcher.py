"""Starting one process for each device. No torch: a configuration is refused before it is imported."""

import ctypes
import os
import signal
import sys

from mythos.config.base import ConfigError
from mythos.config.cluster import ClusterConfig

_PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


class ToldByFirstRank(ConfigError):
    """An error of rank 0 that every rank shares; rank 0 says it."""


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return "RANK" in os.environ


def is_first_rank() -> bool:
    """Whether this process speaks for the run."""
    return os.environ.get("RANK", "0") == "0"


def launch(cluster: ClusterConfig, arguments: list[str]) -> int:
    """Start ``mythos`` with these arguments once for each device of this machine, by torchrun, and wait.

    Returns:
        The exit status of the rank that failed first, or 0.

    Raises:
        ConfigError: the run spans nodes, which one machine cannot start.
        KeyboardInterrupt: the ranks were told to stop.
    """
    if cluster.num_nodes > 1:
        raise ConfigError(
            f"cluster.num_nodes is {cluster.num_nodes}: start the command on each node, torchrun --nnodes "
            f"{cluster.num_nodes} --node-rank 0, 1, ... --nproc-per-node {cluster.num_devices} "
            "--master-addr FIRST_NODE --master-port PORT -m mythos.cli.main train ..."
        )
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    options = ["--standalone", "--nproc-per-node", str(cluster.num_devices), "-m", "mythos.cli.main"]
    try:
        torchrun([*options, *arguments])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode  # killed by a signal, as shells say
    except SignalException:
        raise KeyboardInterrupt from None
    return 0


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
