"""``parallel.remat=auto`` in training: resolved once, before anything is built, and recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from parallel.ranks import ENVIRONMENT, SMALL

from mythos.account.estimate import POLICIES, memory, with_policy
from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.train.remat import resolve_remat
from mythos.train.start import start


def just_enough_gb(config: RunConfig, policy: tuple[str, bool]) -> float:
    """Least memory into which this policy fits."""
    return (memory(with_policy(config, policy), False).total + 1) / 1e9


def test_the_policy_is_printed_and_recorded(configure, capsys: pytest.CaptureFixture[str]) -> None:
    words, depth = ("parallel.remat=auto", "run.num_steps=2"), ("depth=fixed", "depth.num_loops=4")
    enough = just_enough_gb(configure(*words, depth=depth), ("loop", False))
    config = configure(*words, f"parallel.memory_gb={enough}", depth=depth)
    assert start(config) == 0
    assert "parallel.remat=auto: loop, estimated to need" in capsys.readouterr().out
    recorded = json.loads((Path(config.run.dir) / "test" / "config.json").read_text())
    assert recorded["parallel"]["remat"] == "loop"


def test_a_run_that_does_not_fit_is_refused_before_its_directory_exists(configure) -> None:
    config = configure("parallel.remat=auto", "parallel.memory_gb=0.5")
    with pytest.raises(
        ConfigError, match=r"parallel.remat: even .* more than the 0.5 GiB of parallel.memory_gb; lower"
    ):
        start(config)
    assert not (Path(config.run.dir) / "test").exists()


def test_a_cpu_without_memory_gb_recomputes_nothing(configure, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure("parallel.remat=auto")
    assert resolve_remat(config) == with_policy(config, POLICIES[0])
    assert "the memory of a CPU is not estimated" in capsys.readouterr().out


def test_a_given_policy_is_kept(configure, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure("parallel.remat=block", "parallel.memory_gb=0.001")
    assert resolve_remat(config) is config
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_all_ranks_use_the_policy_of_rank_zero(packed: Path, tmp_path: Path) -> None:
    words = ["parallel=zero1", "cluster.num_devices=2", "parallel.remat=auto", "parallel.memory_gb=100"]
    paths = [f"data.dir={packed}", f"run.dir={tmp_path}", "run.name=run"]
    done = subprocess.run(
        [sys.executable, "-m", "mythos.cli.main", "train", *SMALL, *words, *paths],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("parallel.remat=auto: none, estimated to need") == 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["parallel"]["remat"] == "none"
