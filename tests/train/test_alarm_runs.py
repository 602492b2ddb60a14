"""Runs that are broken on purpose, and the alarms that they raise."""

import json
from pathlib import Path

import pytest
import torch
from helpers import recorded

from mythos.config import records
from mythos.model.mythos import Mythos
from mythos.train import build
from mythos.train.build import build_model, train
from mythos.train.run_directory import prepare


def run_of(config) -> Path:
    return Path(config.run.dir) / config.run.name


def test_alarms_are_recorded_each_time_and_reported_once(configure, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """A router that sends every token to the same two of four experts."""

    def forced(*arguments) -> Mythos:
        model = build_model(*arguments)
        model.core.router_bias[..., :2] = 100.0
        return model

    monkeypatch.setattr(build, "build_model", forced)
    config = configure("telemetry.trace_every=2", "telemetry.alarms.idle_steps=3", "balance=none")
    train(config, prepare(config))
    run = run_of(config)
    assert recorded(run, records.alarm("dead_expert")) == {4: 1.0, 6: 1.0, 8: 1.0}
    assert recorded(run, records.alarm_figure("dead_expert")) == {4: 4.0, 6: 6.0, 8: 8.0}
    assert recorded(run, records.alarm_limit("dead_expert")) == {4: 3.0, 6: 3.0, 8: 3.0}
    lines = [line for line in capsys.readouterr().err.splitlines() if "no token has been routed" in line]
    assert lines == [
        "alarm at step 4: no token has been routed to an expert of core layer 0 in any loop for 4 steps; "
        "the limit is 3."
    ]


def test_a_collapsed_state_raises_the_alarm(configure, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Every token has the same embedding."""

    def collapsed(*arguments) -> Mythos:
        model = build_model(*arguments)
        with torch.no_grad():
            model.embedding.weight.copy_(model.embedding.weight[:1].expand_as(model.embedding.weight))
        return model

    monkeypatch.setattr(build, "build_model", collapsed)
    options = ("telemetry.trace_every=1", "model.initial_state=zero", "optim.lr=1e-6", "model.head.tied=false")
    config = configure(*options)
    train(config, prepare(config))
    assert recorded(run_of(config), records.alarm_figure("token_correlation"))[3] == pytest.approx(1, abs=1e-4)
    assert "the state is collapsing to one vector" in capsys.readouterr().err


def test_a_healthy_start_raises_no_alarm(configure, capsys) -> None:
    config = configure("telemetry.trace_every=1", "model.output_scale=1")
    train(config, prepare(config))
    lines = [json.loads(line) for line in (run_of(config) / "metrics.jsonl").read_text().splitlines()]
    assert not any(name.startswith("alarm/") for line in lines for name in line)
    assert "alarm" not in capsys.readouterr().err


def test_loops_that_do_nothing_raise_the_alarm(configure) -> None:
    """At the start the blocks add nothing, and the norm before the head removes the scale of the injection."""
    options = ("telemetry.trace_every=1", "telemetry.alarms.num_warmup_steps=5", "optim.lr=1e-6", "optim.muon_lr=1e-6")
    config = configure(*options, "model.initial_state=zero")
    train(config, prepare(config))
    assert set(recorded(run_of(config), records.alarm("ignored_state"))) == {5, 6, 7, 8}


def test_a_loss_that_is_not_finite_is_reported_with_the_next_metrics(configure, monkeypatch, capsys) -> None:
    def broken(*arguments) -> Mythos:
        model = build_model(*arguments)
        with torch.no_grad():
            model.coda[0].ffn_norm.weight.fill_(float("inf"))
        return model

    monkeypatch.setattr(build, "build_model", broken)
    config = configure("telemetry.trace_every=1000", "tracking.log_every=2", "run.num_steps=4")
    train(config, prepare(config))
    assert set(recorded(run_of(config), records.alarm("not_finite"))) == {1, 2, 4}
    assert capsys.readouterr().err.count("alarm at step 1:") == 1
