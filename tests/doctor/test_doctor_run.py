"""Checks of a run: its data, its tracker, a layout that fits; and checks between ranks."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run_config

from mythos.account.communication import Links
from mythos.account.peak import named_device
from mythos.account.plan import plan
from mythos.config.base import ConfigError
from mythos.doctor.network import judge, judge_clocks
from mythos.doctor.run import data, layout, tracker

KEY = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
RUN = [
    *("model=560m-a210m", "optim=adamw", "parallel=zero1", "cluster.num_devices=2", "parallel.precision=bf16"),
    *("data.seq_len=2048", "data.micro_batch_size=8", "data.batch_size=32"),
]


def test_valid_data_are_hashed(packed: Path) -> None:
    finding = data(run_config(f"data.dir={packed}"))
    assert (finding.status, finding.found.startswith(f"{packed}: ")) == ("ok", True)
    assert finding.found.endswith("every SHA-256 matches")


def test_damaged_data_fail_with_advice(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "packed"
    shutil.copytree(packed, directory)
    config = run_config(f"data.dir={directory}")
    tokens = next(directory.glob("train-*.tokens"))
    content = tokens.read_bytes()
    tokens.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert data(config).found.startswith(f"{tokens} changed after it was packed")
    monkeypatch.setattr("mythos.doctor.run._HASHED_BYTES", 100)
    assert data(config).found.endswith("sizes match (mythos-data verify hashes all files)")
    tokens.write_bytes(content[:-2])
    short = data(config)
    assert (short.status, short.advice.startswith("pack again with mythos-data pack")) == ("fails", True)
    shutil.rmtree(directory)
    assert "no such folder" in data(config).found


def test_a_vocabulary_that_does_not_fit_fails(packed: Path) -> None:
    finding = data(run_config(f"data.dir={packed}", "model.vocab_size=511"))
    assert (finding.status, finding.advice[:26]) == ("fails", "set model.vocab_size=512, ")


def test_the_key_of_wandb_is_found_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    online = run_config("tracking=wandb")
    assert tracker(online).found == "wandb, not logged in to api.wandb.ai"
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert tracker(online).found == f"wandb, a key for api.wandb.ai in {tmp_path / 'netrc'} (not tested)"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert (tracker(online).status, tracker(online).found[-17:]) == ("fails", "wandb.example.org")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert tracker(online).status == "ok"
    assert KEY not in str(tracker(online))
    monkeypatch.delenv("WANDB_API_KEY")
    assert tracker(run_config("tracking=wandb", "tracking.mode=offline")).status == "ok"
    assert tracker(run_config()).found == "jsonl"


def test_the_layout_is_that_of_plan_with_a_change_that_fits() -> None:
    config, tight = run_config(*RUN), run_config(*RUN, "parallel.memory_gb=24")
    needed = plan(config, "H100").memory.total / 2**30
    assert layout(config, "H100").found == f"fits: {needed:.1f} of 79.0 GiB on H100"
    finding = layout(tight, "H100")
    assert (finding.status, finding.found.partition(":")[0]) == ("fails", "does not fit")
    changes = finding.advice.removeprefix("would fit with: ").split()
    assert layout(run_config(*RUN, "parallel.memory_gb=24", *changes), "H100").status == "ok"
    assert layout(run_config("parallel.device=cpu"), None).status == "ok"
    with pytest.raises(ConfigError, match="'abacus' is not in the table"):
        layout(config, "abacus")


def test_bandwidth_is_compared_with_the_links() -> None:
    links = Links(named_device("H200"), 1, 8)
    expected = 1e9 / links.ring_seconds(1e9, 8, 1)
    assert expected == pytest.approx(0.8 * 450e9)
    for share, status in ((1.0, "ok"), (0.51, "ok"), (0.49, "warning"), (0.11, "warning"), (0.09, "fails")):
        assert judge("all-reduce x8", share * expected, expected).status == status
    assert judge("all-reduce x8", 1.0, None).status == "ok"


@pytest.mark.parametrize(("offset", "status"), [(0.9, "ok"), (-1.1, "warning"), (899.0, "warning"), (-901.0, "fails")])
def test_the_worst_clock_counts(offset: float, status: str) -> None:
    finding = judge_clocks({1: 0.01, 2: offset})
    assert (finding.status, finding.found) == (status, f"node 2 is {abs(offset):.3f} s off the first")


RANKS = """
import sys, time
import torch.distributed as dist
from mythos.config.load import load
from mythos.doctor import network

dist.init_process_group("gloo")
ahead = 5.0 if dist.get_rank() == 1 else 0.0
offsets = network.clock_offsets([1], None, lambda: time.time() + ahead)
network._slowest = lambda call, device: (call(), 0.004)[1]
findings = network.bandwidth(load(sys.argv[1:]))
if dist.get_rank() == 0:
    print(offsets[1], *(f"{one.check}: {one.found}" for one in findings), sep="\\n")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_measure_clocks_and_count_what_is_sent(tmp_path: Path) -> None:
    """16 MiB in 4 ms: an all-reduce of two ranks sends all of it from each, an all-to-all half."""
    (tmp_path / "ranks.py").write_text(RANKS)
    overrides = ["model=debug", "optim=adamw", "parallel=zero1", "data.micro_batch_size=8", "cluster.num_devices=2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "ranks.py"), *overrides],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    offset, *lines = done.stdout.splitlines()
    assert float(offset) == pytest.approx(5.0, abs=0.2)
    assert lines == ["all-reduce x2: 4.19 GB/s over gloo", "all-to-all x2: 2.10 GB/s over gloo"]


def test_two_nodes_on_one_machine(packed: Path, tmp_path: Path) -> None:
    """The command as it is started on each node; the first node prints the findings of both."""
    overrides = ["model=debug", "optim=adamw", "parallel=zero1", "data.micro_batch_size=8", "cluster.num_nodes=2"]
    overrides += [f"data.dir={packed}", f"run.dir={tmp_path}", "parallel.device=cpu"]
    command = [sys.executable, "-m", "mythos.cli.main", "doctor", *overrides, "--json", str(tmp_path / "found.json")]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(command, env=shared | {"NODE_RANK": str(node)}, stdout=subprocess.PIPE, text=True)
        for node in (0, 1)
    ]
    outputs = [node.communicate()[0] for node in nodes]
    result = json.loads((tmp_path / "found.json").read_text())
    by_check = {one["check"]: one for one in result["findings"]}
    assert [node.returncode for node in nodes] == [int(result["status"] == "fails"), 0]
    assert outputs[1] == ""
    assert len(outputs[0].splitlines()) == len(result["findings"]) == len(by_check)
    assert by_check["clocks"]["status"] == "ok"
    assert by_check["all-reduce x2"]["found"].endswith(" GB/s over gloo")
    assert by_check["python"]["found"].endswith(" and 1 more)"), "of both nodes"
    assert by_check["data"]["status"] == "ok"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
