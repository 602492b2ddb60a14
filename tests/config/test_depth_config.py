import json
from functools import lru_cache
from typing import Any

import pytest

from mythos.config.base import ConfigError, decode, encode
from mythos.config.depth import ChoiceDepth, GrowthStage, LogNormalPoissonDepth, Ramp
from mythos.config.load import load
from mythos.config.run import RunConfig


@lru_cache
def encoded(option: str) -> str:
    return json.dumps(encode(load([f"depth={option}"])))


@pytest.mark.parametrize(
    ("option", "changes", "sentence"),
    [
        (
            "fixed",
            {"per_sequence": True},
            "depth.per_sequence: no such key; known here: damping, kind, num_grad_loops, num_loops.",
        ),
        (
            "uniform",
            {"min_loops": 9, "max_loops": 4},
            "depth: min_loops is 9 but max_loops is 4; exchange the two.",
        ),
        (
            "uniform",
            {"num_grad_loops": 17},
            "depth: num_grad_loops is 17 but max_loops is 16; no more loops can keep gradients than are run.",
        ),
        (
            "choice",
            {"choices": [2, 8, 4]},
            "depth: choices holds 8 before 4; list each value once, in ascending order.",
        ),
        (
            "choice",
            {"choices": [2, 2]},
            "depth: choices holds 2 before 2; list each value once, in ascending order.",
        ),
        (
            "choice",
            {"weights": [1, 2]},
            "depth: weights has 2 entries but choices has 4; give one for each.",
        ),
        (
            "choice",
            {"num_grad_loops": 20},
            "depth: num_grad_loops is 20 but max_loops is 16; no more loops can keep gradients than are run.",
        ),
        (
            "lognormal_poisson",
            {"mean": 200, "num_grad_loops": 8},
            "depth: mean is 200 but max_loops is 128; raise max_loops to twice the mean.",
        ),
        (
            "poisson",
            {"ramp": {"num_steps": 10}},
            "depth.ramp: neither start_mean nor start_grad_loops is given; set one of them, or set ramp=null.",
        ),
        (
            "poisson",
            {"ramp": {"num_steps": 10, "start_mean": 9}},
            "depth: ramp.start_mean is 9 but the mean at the end of the ramp is 8; a ramp only rises, so start lower.",
        ),
        (
            "uniform",
            {"min_loops": 3, "ramp": {"num_steps": 10, "start_mean": 2}},
            "depth: ramp.start_mean is 2 but the smallest T is 3; start there or above.",
        ),
        (
            "poisson",
            {"ramp": {"num_steps": 10, "start_grad_loops": 5}},
            "depth: ramp.start_grad_loops is 5 but the num_grad_loops at the end of the ramp is 4; "
            "a ramp only rises, so start lower.",
        ),
        (
            "poisson",
            {"ramp": {"num_steps": 10, "start_mean": 1}, "growth": [{"step": 9, "mean": 9}]},
            "depth: growth[0].step is 9 but ramp.num_steps is 10; "
            "each stage begins after the one before it, and the first when the ramp is over.",
        ),
        (
            "poisson",
            {"growth": [{"step": 9, "mean": 9}, {"step": 9, "mean": 10}]},
            "depth: growth[1].step is 9 but growth[0].step is 9; "
            "each stage begins after the one before it, and the first when the ramp is over.",
        ),
        (
            "poisson",
            {"growth": [{"step": 9, "mean": 10}, {"step": 20, "mean": 9}]},
            "depth: growth[1].mean is 9 but the mean before it is 10; the mean never falls.",
        ),
        (
            "poisson",
            {"growth": [{"step": 9, "mean": 33}]},
            "depth: growth[0].mean is 33 but max_loops is 32; no more loops are run than that.",
        ),
        (
            "poisson",
            {"growth": [{"step": 9, "mean": 12, "num_grad_loops": 40}]},
            "depth: growth[0].num_grad_loops is 40 but max_loops is 32; no more loops are run than that.",
        ),
    ],
)
def test_contradicting_fields_give_one_sentence(option: str, changes: dict[str, Any], sentence: str) -> None:
    raw = json.loads(encoded(option))
    raw["depth"] |= changes
    with pytest.raises(ConfigError) as caught:
        decode(RunConfig, raw)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("option", "mean", "grad_loops", "max_loops"),
    [
        ("fixed", 8, 8, 8),
        ("poisson", 8, 4, 32),
        ("lognormal_poisson", 32, 8, 128),
        ("uniform", 8.5, 5, 16),
        ("choice", 7.5, 4, 16),
    ],
)
def test_every_kind_has_a_mean_a_k_and_a_bound(option: str, mean: float, grad_loops: int, max_loops: int) -> None:
    depth = load([f"depth={option}"]).depth
    assert (depth.mean, depth.grad_loops, depth.max_loops) == (mean, grad_loops, max_loops)
    assert not depth.per_sequence


def test_a_curriculum_is_read_from_the_command_line_and_survives_the_checkpoint() -> None:
    run = load(["depth.ramp={num_steps:100,start_mean:1}", "depth.growth=[{step:500,mean:12}]"])
    assert run.depth.ramp == Ramp(num_steps=100, start_mean=1.0)
    assert run.depth.growth == (GrowthStage(step=500, mean=12.0),)
    assert decode(RunConfig, json.loads(json.dumps(encode(run)))) == run


def test_a_stage_may_begin_when_the_ramp_ends() -> None:
    depth = LogNormalPoissonDepth(
        mean=8.0, ramp=Ramp(num_steps=10, start_mean=8.0), growth=(GrowthStage(step=10, mean=8.0),)
    )
    assert depth.growth[0].step == 10
    assert ChoiceDepth(choices=(3,)).grad_loops == 2
