"""Runs a real SLURM of two nodes on this machine for the duration of a test. Needs root and the daemons."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import wait_until

DAEMONS = ("munged", "slurmctld", "slurmd")
SETTINGS = """ClusterName=mythos
SlurmctldHost=localhost
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
KillWait=5
MinJobAge=300
NodeName=n[0-1] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{node_0},{node_1}] CPUs=4 RealMemory=1000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def reason_to_skip() -> str | None:
    """The reason why SLURM cannot run here, or None."""
    if missing := [name for name in DAEMONS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]:
        return f"not installed: {', '.join(missing)}"
    return None if os.geteuid() == 0 else "SLURM's daemons are started by root"


@contextmanager
def slurm() -> Iterator[Path]:
    """Start the daemons, set ``SLURM_CONF``, yield their folder, and end the daemons and their jobs."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    munge = folder / "munge"
    for path in (munge, folder / "state", folder / "spool.n0", folder / "spool.n1"):
        path.mkdir()
    (munge / "key").write_bytes(os.urandom(1024))
    (munge / "key").chmod(0o400)
    subprocess.run(["chown", "-R", "munge:", munge], check=True)
    munge.chmod(0o755)
    controller, node_0, node_1 = _free_ports(3)
    settings = folder / "slurm.conf"
    settings.write_text(SETTINGS.format(folder=folder, controller=controller, node_0=node_0, node_1=node_1))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(settings)
    try:
        files = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
        options = " ".join(f"--{option}={munge / name}" for option, name in files.items())
        _start(["su", "-s", "/bin/bash", "munge", "-c", f"/usr/sbin/munged {options}"])
        _start(["slurmctld", "-f", str(settings), "-c"])
        for node in ("n0", "n1"):
            _start(["slurmd", "-f", str(settings), "-N", node])
        wait_until(lambda: call("sinfo", "--noheader", "--format=%T %D") == "idle 2")
        yield folder
    finally:
        call("scancel", "--user=root")
        call("scancel", "--user=root", "--signal=KILL")
        _end(folder)
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


def call(*command: str) -> str:
    """The output of a SLURM command; empty if it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def job_field(job: str, name: str) -> str:
    """A field of ``scontrol show job``."""
    fields = dict(word.partition("=")[::2] for word in call("scontrol", "show", "job", job).split())
    return fields.get(name, "")


def _start(command: list[str]) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin"
    subprocess.run(command, env=os.environ | {"PATH": path}, check=True)


def _end(folder: Path) -> None:
    """End the daemons that the pid files name."""
    for name in ("slurmd.n0.pid", "slurmd.n1.pid", "slurmctld.pid", "munge/pid"):
        path = folder / name
        if path.is_file():
            process = int(path.read_text())
            os.kill(process, signal.SIGTERM)
            deadline = time.monotonic() + 15
            while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
                time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    """Free ports below the range of client ports, so that no client takes one before a daemon does."""
    ports: list[int] = []
    for port in range(16800 + os.getpid() % 1000, 20000):
        with socket.socket() as probe:
            if len(ports) < number and probe.connect_ex(("127.0.0.1", port)):
                ports.append(port)
    return ports
