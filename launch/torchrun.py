"""Machines without a scheduler: ``torchrun`` on this one, on hosts that ssh reaches, or started by hand.

The launchers connect to a fixed address and do not use the c10d rendezvous: with it, the launchers of the other nodes
wait forever if the link to the first node is cut (docs/distributed.md). The run is not restarted automatically; on one
machine, ``run.max_restarts`` of ``mythos train`` does that.
"""

import shlex
import subprocess
import sys

from launch import commands
from launch.render import network, render
from launch.submission import Submission, Submitted, check_code_path
from mythos.config.base import ConfigError
from mythos.config.cluster import TorchrunCluster
from mythos.config.run import RunConfig
from mythos.files import open_regular
from mythos.train.run_directory import check_unlocked

NEEDS_CODE = True


def check(config: RunConfig, submission: Submission) -> None:
    """Check the configuration.

    Raises:
        ConfigError: the nodes have no address of the first node, or the submission's folder cannot hold the code.
    """
    check_code_path(submission)
    cluster = config.cluster
    assert isinstance(cluster, TorchrunCluster)
    if cluster.num_nodes > 1 and not cluster.hosts and cluster.master_address is None:
        raise ConfigError(
            f"cluster.num_nodes is {cluster.num_nodes} but neither cluster.hosts nor cluster.master_address is set; "
            "set the hosts for ssh, or the first node's address to start each node by hand."
        )


def check_machine(config: RunConfig) -> None:
    """Check this machine.

    Raises:
        ConfigError: hosts are configured, but there is no ssh.
    """
    cluster = config.cluster
    assert isinstance(cluster, TorchrunCluster)
    if cluster.hosts:
        commands.need("ssh", "torchrun")


def check_free(config: RunConfig, submission: Submission) -> None:
    """Check that the run is free.

    Raises:
        ConfigError: the run is being trained.
    """
    check_unlocked(config)


def files(config: RunConfig, submission: Submission) -> dict[str, str]:
    """Render the script that starts one node; its argument is the index of the node."""
    cluster = config.cluster
    assert isinstance(cluster, TorchrunCluster)
    address = cluster.master_address or (cluster.hosts[0].rpartition("@")[2] if cluster.hosts else "127.0.0.1")
    script = render(
        "torchrun.sh",
        num_nodes=cluster.num_nodes,
        num_devices=cluster.num_devices,
        master_address=shlex.quote(address),
        master_port=cluster.master_port,
        network=network(cluster.network_interface),
        num_threads=cluster.num_threads or 1,
        submission=shlex.quote(str(submission.folder)),
        working_directory=shlex.quote(str(submission.working_directory)),
        python=shlex.quote(sys.executable),
    )
    return {"job.sh": script}


def submit(config: RunConfig, submission: Submission) -> Submitted:
    """Start the nodes in the background, or return the commands that start them by hand."""
    cluster = config.cluster
    assert isinstance(cluster, TorchrunCluster)
    script = shlex.quote(str(submission.folder / "job.sh"))
    logs = [shlex.quote(str(submission.folder / f"node-{node}.log")) for node in range(cluster.num_nodes)]
    if cluster.hosts:
        ids = _start_by_ssh(cluster, script, logs)
        command = f"ssh HOST bash {script} NODE"
        stop = tuple(f"ssh {host} kill {process}" for host, process in zip(cluster.hosts, ids, strict=True))
    elif cluster.num_nodes == 1:
        ids = [_start_here(submission)]
        command, stop = f"bash {script} 0", (f"kill {ids[0]}",)
    else:
        by_hand = tuple(f"on node {node}: bash {script} {node}" for node in range(cluster.num_nodes))
        return Submitted(command="nothing yet; start each node by hand", job=None, inspect=by_hand, stop=())
    return Submitted(command=command, job=", ".join(map(str, ids)), inspect=(f"tail -F {logs[0]}",), stop=stop)


def _start_here(submission: Submission) -> int:
    with open_regular(submission.folder / "node-0.log", "ab") as log:
        process = subprocess.Popen(
            ["bash", str(submission.folder / "job.sh"), "0"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # outlives this terminal
        )
    return process.pid


def _start_by_ssh(cluster: TorchrunCluster, script: str, logs: list[str]) -> list[int]:
    """Start all nodes, or none; returns the process IDs."""
    started: list[int] = []
    for node, (host, log) in enumerate(zip(cluster.hosts, logs, strict=True)):
        remote = f"nohup setsid bash {script} {node} >{log} 2>&1 </dev/null & echo $!"
        try:
            started.append(int(commands.output(["ssh", "-o", "BatchMode=yes", host, remote])))
        except (ConfigError, ValueError) as error:
            for earlier, process in zip(cluster.hosts, started, strict=False):
                commands.run(["ssh", "-o", "BatchMode=yes", earlier, f"kill {process}"])
            raise ConfigError(f"cluster.hosts: {host} could not be started: {error}") from None
    return started
