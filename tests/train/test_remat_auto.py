"""``parallel.remat=auto`` in training: settled once, before anything is built, and written down."""

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
from mythos.train.remat import settle_remat
from mythos.train.start import start


def just_enough_gb(config: RunConfig, policy: tuple[str, bool]) -> float:
    """Memory into which this policy fits, to a byte."""
    return (memory(with_policy(config, policy), False).total + 1) / 1e9


def test_the_choice_is_printed_and_recorded(configure, capsys: pytest.CaptureFixture[str]) -> None:
    words, depth = ("parallel.remat=auto", "run.num_steps=2"), ("depth=fixed", "depth.num_loops=4")
    enough = just_enough_gb(configure(*words, depth=depth), ("loop", False))
    config = configure(*words, f"parallel.memory_gb={enough}", depth=depth)
    assert start(config) == 0
    assert "parallel.remat=auto: loop, estimated to need" in capsys.readouterr().out
    recorded = json.loads((Path(config.run.dir) / "test" / "config.json").read_text())
    assert recorded["parallel"]["remat"] == "loop"


def test_what_does_not_fit_is_refused_before_there_is_a_run(configure) -> None:
    config = configure("parallel.remat=auto", "parallel.memory_gb=0.5")
    with pytest.raises(
        ConfigError, match=r"parallel.remat: even .* more than the 0.5 GiB of parallel.memory_gb; lower"
    ):
        start(config)
    assert not (Path(config.run.dir) / "test").exists()


def test_a_cpu_without_memory_gb_recomputes_nothing(configure, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure("parallel.remat=auto")
    assert settle_remat(config) == with_policy(config, POLICIES[0])
    assert "the memory of a CPU is not estimated" in capsys.readouterr().out


def test_what_was_given_is_not_touched(configure, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure("parallel.remat=block", "parallel.memory_gb=0.001")
    assert settle_remat(config) is config
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_ranks_take_the_choice_of_the_first(packed: Path, tmp_path: Path) -> None:
    words = ["parallel=zero1", "cluster.num_devices=2", "parallel.remat=auto", "parallel.memory_gb=100"]
    place = [f"data.dir={packed}", f"run.dir={tmp_path}", "run.name=run"]
    done = subprocess.run(
        [sys.executable, "-m", "mythos.cli.main", "train", *SMALL, *words, *place],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("parallel.remat=auto: none, estimated to need") == 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["parallel"]["remat"] == "none"
