"""Two hosts train together, lose their link, and resume. Network namespaces stand in for the hosts."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import recorded, saved, wait_until

from mythos.checkpoint.store import checkpoints
from mythos.config import records
from mythos.config.exit_status import LOST_PEER

TIMEOUT_SECONDS = 30
BOUND_SECONDS = 2 * TIMEOUT_SECONDS + 10
"""From the cut to the end of both launchers: ranks wait for each other once, and rank 0 perhaps once more for the
shards of a save that the others did not finish. The time of the start is added, which grows with the machine's load."""
NUM_STEPS = 60
OPTIONS = f"""model=debug optim=adamw data.seq_len=32 data.batch_size=8 data.micro_batch_size=2 depth.mean=3
run.validation.every=50 run.validation.num_batches=4 run.checkpoint.every=5 tracking.log_every=1 parallel.device=cpu
parallel=zero1 parallel.ep_size=2 schedule.num_warmup_steps=5 cluster.timeout_seconds={TIMEOUT_SECONDS}""".split()
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false"}
ADDRESSES = ("10.77.0.1", "10.77.0.2")
"""The two ends of the only link. They are invisible outside, so concurrent test runs may share them."""
DEVICE = "veth0"


def ip(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


def do(*arguments: str) -> None:
    done = ip(*arguments)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Names of two namespaces with one link between them."""
    names = (f"mythos-{os.getpid()}-a", f"mythos-{os.getpid()}-b")
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command (iproute2)")
    try:
        for name in names:
            if (added := ip("netns", "add", name)).returncode:
                pytest.skip(f"network namespaces are not permitted here: {added.stderr.strip()}")
        do("link", "add", DEVICE, "netns", names[0], "type", "veth", "peer", "name", DEVICE, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            do("-n", name, "address", "add", f"{address}/24", "dev", DEVICE)
            for device in (DEVICE, "lo"):
                do("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)  # and with it the link


def start(parent: Path, log: str, command: list[str], packed: Path, *more: str) -> subprocess.Popen:
    """Start training; the output of the launcher and its ranks is appended to ``<parent>/<log>``."""
    options = [*OPTIONS, f"data.dir={packed}", f"run.dir={parent}", f"run.num_steps={NUM_STEPS}", "resume=auto", *more]
    with (parent / log).open("ab") as output:
        return subprocess.Popen(
            [*command, "-m", "mythos.cli.main", "train", *options],
            stdout=output,
            stderr=output,
            env=os.environ | ENVIRONMENT,
            start_new_session=True,
        )


def start_on(hosts: tuple[str, str], parent: Path, packed: Path) -> list[subprocess.Popen]:
    """Start two ranks on each host.

    Launchers with a c10d rendezvous would not notice the cut: the second waits for the first's store for ever, whatever
    its ``read_timeout``.
    """
    launchers = []
    for rank, host in enumerate(hosts):
        node = [
            "--nnodes",
            "2",
            "--node-rank",
            str(rank),
            "--master-addr",
            ADDRESSES[0],
            "--master-port",
            "29400",
        ]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *node, "--nproc-per-node", "2"]
        command = ["ip", "netns", "exec", host, "env", f"GLOO_SOCKET_IFNAME={DEVICE}", *torchrun]
        nodes = ["run.name=cut", "cluster.num_nodes=2", "cluster.num_devices=2"]
        launchers.append(start(parent, f"host-{rank}.log", command, packed, *nodes))
    return launchers


def end(launchers: list[subprocess.Popen]) -> None:
    """Kill the launchers that still run; their ranks end with them."""
    for launcher in launchers:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()


def num_saved(run: Path) -> int:
    return len(checkpoints(run / "checkpoints"))


@pytest.mark.slow
def test_a_cut_link_ends_both_hosts_and_the_run_resumes_bitwise(hosts, packed: Path, tmp_path: Path) -> None:
    one_host = ["run.name=whole", "cluster.num_devices=4"]
    launchers = [start(tmp_path, "whole.log", [sys.executable], packed, *one_host)]
    cut = tmp_path / "cut"
    try:
        assert launchers[0].wait() == 0

        started_at = time.monotonic()
        launchers += (training := start_on(hosts, tmp_path, packed))
        wait_until(lambda: num_saved(cut) >= 2 or any(launcher.poll() is not None for launcher in training))
        assert all(launcher.poll() is None for launcher in training)
        do("-n", hosts[0], "link", "set", DEVICE, "down")
        cut_at = time.monotonic()
        deadline = cut_at + BOUND_SECONDS + (cut_at - started_at)
        assert all(launcher.wait(deadline - time.monotonic()) != 0 for launcher in training)
        assert num_saved(cut) >= 2
        assert not (cut / "checkpoints" / f"step-{NUM_STEPS:08d}").exists(), "the run ended before the link was cut"
        for host in (0, 1):
            log = (tmp_path / f"host-{host}.log").read_text()
            assert f"mythos: rank {2 * host} of 4" in log or f"mythos: rank {2 * host + 1} of 4" in log
            assert "lost contact with another rank" in log
            assert f"(exitcode: {LOST_PEER})" in log

        do("-n", hosts[0], "link", "set", DEVICE, "up")
        launchers += (training := start_on(hosts, tmp_path, packed))
        assert [launcher.wait() for launcher in training] == [0, 0]
    finally:
        end(launchers)
    first, second = ((tmp_path / f"host-{host}.log").read_text() for host in (0, 1))
    assert "resuming from" in first
    assert first.count(f"step {NUM_STEPS}/{NUM_STEPS}") == 1
    assert f"/{NUM_STEPS} " not in second, "rank 0 alone shows the progress"

    whole = tmp_path / "whole"
    for name in (records.TRAIN_LOSS, records.NUM_LOOPS, records.validation_loss(4)):
        assert recorded(whole, name) == recorded(cut, name), name
    ours, theirs = saved(whole, NUM_STEPS), saved(cut, NUM_STEPS)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
