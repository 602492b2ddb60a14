"""A run with a penalty, an optimiser and a tracker of another package, interrupted and resumed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import recorded, saved

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.train.build import train
from mythos.train.run_directory import prepare
from mythos.train.start import start

SOURCE = """
import torch
from mythos.train.trackers.base import Tracker

def state_square(weight, inputs):
    return weight * inputs.output.state_BSD.square().sum() / inputs.batch.num_targets

class Momentum(torch.optim.SGD):
    def __init__(self, groups, momentum):
        super().__init__(groups, lr=1.0, momentum=momentum)

class Lines(Tracker):
    def __init__(self, run, directory, first_step, facts, file):
        super().__init__()
        assert facts["run"]["name"] == run.run.name
        self.path = directory / file
        self.path.touch()

    def log_metrics(self, metrics, step=None):
        self.path.write_text(self.path.read_text() + f"{step} {metrics.get('train/penalty/state_square')}\\n")

    def end(self, status):
        self.path.write_text(self.path.read_text() + status + "\\n")
"""
OPTIONS = (
    "objective.terms.state_square=1e-3",
    *("optim=foreign", "optim.name=momentum", "optim.lr=1e-2", "optim.options={momentum: 0.9}"),
    *("tracking=foreign", "tracking.name=lines", "tracking.options={file: lines.txt}", "tracking.log_every=1"),
)


@pytest.fixture(autouse=True)
def _installed(install: Callable[..., None]) -> None:
    install(
        "foreign_parts",
        "1.0",
        SOURCE,
        loss_terms=["state_square = foreign_parts:state_square"],
        optimizers=["momentum = foreign_parts:Momentum"],
        trackers=["lines = foreign_parts:Lines"],
    )


def test_a_run_records_saves_and_resumes_what_another_package_brings(configure) -> None:
    whole = configure(*OPTIONS, "run.name=whole")
    train(whole, prepare(whole))
    run = Path(whole.run.dir) / "whole"
    curve = recorded(run, records.penalty("state_square"))
    assert list(curve) == list(range(1, 9))
    assert min(curve.values()) > 0
    lines = (run / "lines.txt").read_text().splitlines()
    assert f"3 {curve[3]}" in lines
    assert lines[-1] == "success"
    assert saved(run, 8)["embedding.weight|momentum_buffer"].any()

    half = configure(*OPTIONS, "run.name=half", "run.num_steps=4", "schedule.cooldown_fraction=0")
    train(half, prepare(half))
    resumed = configure(*OPTIONS, "run.name=half", "resume=auto", "schedule.cooldown_fraction=0")
    train(resumed, prepare(resumed))
    at_once = configure(*OPTIONS, "run.name=at_once", "schedule.cooldown_fraction=0")
    train(at_once, prepare(at_once))
    ours, theirs = (saved(Path(whole.run.dir) / name, 8) for name in ("half", "at_once"))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("objective.terms.curl=1", r"^objective.terms.curl: 'curl' was given"),
        ("optim.name=moment", r"^optim.name: 'moment' was given, .* did you mean 'momentum'\?"),
        ("tracking.name=line", r"^tracking.name: 'line' was given, .* did you mean 'lines'\?"),
    ],
)
def test_unknown_names_are_refused_before_the_directory_exists(configure, override: str, sentence: str) -> None:
    config = configure(*OPTIONS, override)
    for begin in (prepare, start):
        with pytest.raises(ConfigError, match=sentence):
            begin(config)
    assert not (Path(config.run.dir) / "test").exists()


def test_options_that_a_tracker_refuses_are_one_sentence(configure) -> None:
    config = configure(*OPTIONS, "tracking.options.place=3")
    with pytest.raises(ConfigError, match=r"^tracking.options: lines refuses \{.* 'place': 3\} \(TypeError: .*\); "):
        train(config, prepare(config))
