"""What a user meets who starts several ranks with one command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.config.cluster import LocalCluster
from mythos.parallel.launcher import check_launcher, launch
from parallel.ranks import ENVIRONMENT, SMALL


def start(*overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mythos.cli.main", "train", *SMALL, "parallel=zero1", *overrides]
    return subprocess.run(
        command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )


def test_one_command_starts_the_ranks_and_says_how_it_went(packed: Path, tmp_path: Path) -> None:
    place = (f"data.dir={packed}", f"run.dir={tmp_path}", "run.name=run", "cluster.num_devices=2")
    done = start(*place)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[0] == "2 ranks (1 nodes x 2), ZeRO 1, 2 micro-batches a step on each"
    assert done.stdout.count("run directory:") == 1
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr

    again = start(*place)
    assert again.returncode == 2
    assert again.stderr.count("already holds a run") == 1

    lost = start(*place, f"resume={tmp_path / 'nowhere'}")
    assert lost.returncode == 2, "the status of the rank, not torchrun's"
    assert lost.stderr.count("no checkpoint here") == 1
    assert "Traceback" not in lost.stderr


def test_one_machine_does_not_start_others() -> None:
    with pytest.raises(ConfigError, match=r"num_nodes is 2: start the command on each node, torchrun --nnodes 2"):
        launch(LocalCluster(num_nodes=2, num_devices=4), ["train"])


def test_a_launcher_that_starts_another_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"1 nodes x 2 devices are 2 processes, but the launcher started 3"):
        check_launcher(LocalCluster(num_devices=2))
    check_launcher(LocalCluster(num_devices=3))
