"""A run directory as training would write it, computed by a pure function."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mythos.config import records
from mythos.config.load import load
from mythos.config.schema import encode_run
from mythos.report.evaluations import write_study

TOKENS_PER_STEP = 4096
SECONDS_PER_STEP = 0.25


def held_out_loss(step: int, num_loops: int) -> float:
    """Loss in nats per token: falls with the step, and with the number of loops once these are trained."""
    learned = 1 - math.exp(-step / 300)
    return 2.31 + 5.3 / (1 + step / 9) ** 0.72 + learned * (0.055 + 0.26 * math.exp(-0.42 * num_loops))


def fake_metrics(
    num_steps: int, num_loops: int, log_every: int, validated: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``; ``validated`` are the loop counts of its validations."""
    rng = np.random.default_rng(0)
    validate_every = max(num_steps // 20, 1)
    yield {"schema": records.SCHEMA}
    for step in range(log_every, num_steps + 1, log_every):
        drawn = int(np.clip(rng.poisson(num_loops * 0.67), 1, num_loops))
        head = {"step": step, "time": 1.79e9 + SECONDS_PER_STEP * step, "tokens": TOKENS_PER_STEP * step}
        noise = rng.normal(0, 0.045) + 0.4 * math.exp(-step / 40) * rng.random()
        yield head | {records.TRAIN_LOSS: held_out_loss(step, drawn) + noise - 0.03, records.NUM_LOOPS: drawn}
        if step % (5 * log_every) == 0:
            growth = 0.25 + 0.5 * math.exp(-step / 500)
            norms = 1 + growth * np.log1p(np.arange(drawn)) + rng.normal(0, 0.01, drawn)
            yield head | {records.state_norm(loop): float(norm) for loop, norm in enumerate(norms)}
        if step % validate_every == 0:
            yield head | {records.validation_loss(count): held_out_loss(step, count) for count in validated}


def fake_telemetry(
    num_steps: int, num_loops: int, every: int, num_layers: int, num_experts: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All metrics of the telemetry, as lines of ``metrics.jsonl`` and of ``trace.jsonl``."""
    rng = np.random.default_rng(1)
    metrics, arrays = [], [{"schema": records.SCHEMA}]
    for step in range(every, num_steps + 1, every):
        head = {"step": step, "time": 1.79e9 + SECONDS_PER_STEP * step, "tokens": TOKENS_PER_STEP * step}
        drawn = int(np.clip(rng.poisson(num_loops * 0.67), 2, num_loops))
        age = step / num_steps
        metrics.append(head | dict(_whole(rng, age)) | dict(_by_loop(rng, age, drawn, num_layers)))
        load = rng.gamma(20, 5, (num_layers, drawn, num_experts)).round(1)
        overlap = np.exp(-np.abs(np.subtract.outer(np.arange(drawn), np.arange(drawn))) / 3).round(3)
        arrays.append(
            {"step": step, "time": head["time"], records.EXPERT_LOAD: load.tolist()}
            | {records.EXPERT_LOAD_LAYERS: list(range(0, 2 * num_layers, 2))}
            | {records.EXPERT_OVERLAP: overlap.tolist()}
        )
    raised = {records.alarm("token_correlation"): 1, records.alarm_figure("token_correlation"): 0.97}
    head = {"step": num_steps // 2, "time": 1.79e9, "tokens": TOKENS_PER_STEP * num_steps // 2}
    metrics.append(head | raised | {records.alarm_limit("token_correlation"): 0.95, "guard/skipped_steps": 3})
    return metrics, arrays


def _whole(rng: np.random.Generator, age: float) -> Iterator[tuple[str, float]]:
    """Quantities of the whole model."""
    factor = min(1.0, 20 * age) * (1 - age)
    yield records.GRAD_NORM, 0.4 + 2 * math.exp(-9 * age) + rng.gamma(2, 0.05)
    for index, group in enumerate(("experts", "hidden", "other")):
        yield records.group_grad_norm(group), 0.1 * (index + 1) + rng.gamma(2, 0.02)
        yield records.group_update_norm(group), 1e-3 * (factor + 0.01) / (index + 1)
        yield records.learning_rate(group), 0.02 * factor / (index + 1)
    yield records.NUM_GRAD_LOOPS, float(rng.integers(2, 5))
    yield records.penalty("router_z_loss"), 7e-4 * (1 - age / 2)
    yield records.TOKENS_PER_SECOND, 9000 + rng.normal(0, 700)
    yield records.DECAY_MAX, 0.5 + 0.3 * age
    yield records.DECAY_MEAN, 0.45 + 0.1 * age
    yield records.INPUT_GAIN, 1 + 0.4 * age
    yield records.LOSS_GAIN, 0.1 * age
    yield records.JACOBIAN_RADIUS, 0.8 + 0.15 * age
    yield "loop/cross_loop_attention/gate", 0.03 * age
    yield "loop/cross_loop_attention/largest_gate", 0.1 * age
    yield records.LOG_PARTITION, 7.6 + 2 * age
    yield records.EXPECTED_LOOPS, 4 + 2 * age
    yield records.MEAN_LOOPS, 5 + age
    yield records.LOAD_VIOLATION, 0.4 * math.exp(-5 * age) + 0.1
    yield records.idle_steps(0), float(rng.integers(0, 4))
    for name, value in (("mfu", 0.41), ("data_wait_share", 0.01)):
        yield f"speed/{name}", value * (1 + rng.normal(0, 0.03))
    for name, value in (("peak_allocated_gib", 61.0), ("peak_reserved_gib", 68.0)):
        yield f"memory/{name}", value


def _by_loop(rng: np.random.Generator, age: float, num_loops: int, num_layers: int) -> Iterator[tuple[str, float]]:
    """Quantities of each loop, and of each loop and layer."""
    mass = rng.dirichlet(np.linspace(1 + 9 * age, 1, num_loops))
    for count in (1, 2, 4, 8):
        yield records.loss_at(count), 3 + math.exp(-count) + 2 * math.exp(-5 * age)
    for loop in range(num_loops):
        yield records.relative_change(loop), math.exp(-0.45 * loop) * (1 + 0.1 * rng.random())
        yield records.cosine(loop), 1 - 0.8 * math.exp(-0.5 * loop) * (1 - age / 2)
        yield records.curvature_ratio(loop), 0.3 + math.exp(-0.5 * loop)
        yield records.token_correlation(loop), 0.2 + 0.3 * age * (1 - math.exp(-loop))
        yield records.halting_mass(loop), float(mass[loop])
        yield records.gate_mean("loop/keep_gate/keep", loop), 0.1 * loop * age
        yield records.gate_near_0("loop/keep_gate/keep", loop), 1 - age
        yield records.gate_near_1("loop/keep_gate/keep", loop), 0.01 * loop
        if loop >= num_loops // 2:
            yield records.gradient_norm(loop), 10 ** (-3 + 0.1 * loop)
        for layer in range(num_layers):
            yield records.update_norm(layer, loop), 0.5 * math.exp(-0.2 * loop) / (layer + 1)
            yield records.load_violation(layer, loop), 0.4 * math.exp(-4 * age) + 0.02 * loop
            yield records.router_entropy(layer, loop), 1.9 - 0.3 * age
            yield records.path_diversity(layer, loop), 2 - math.exp(-loop)
            if loop:
                yield records.identical_experts(layer, loop), 1 - math.exp(-0.4 * loop)
                yield records.disjoint_experts(layer, loop), 0.2 * math.exp(-0.4 * loop)


def fake_studies(num_loops: int) -> dict[str, dict[str, Any]]:
    """Results of ``mythos evaluate``, by study."""
    loops = np.arange(1, num_loops + 1)
    falling = np.exp(-loops / 4)
    rules = [
        {"rule": rule, "threshold": 0.1 / number, "mean_loops": 1.5 + number, "changed_share": 0.02 * number}
        | {"loss": 2.5 + 0.5 / number, "accuracy": 0.4 + 0.02 * number}
        for rule in ("relative_change", "stable_argmax")
        for number in (1, 2, 3)
    ]
    sweep = {"num_loops": [count for count in (1, 2, 4, 6, 8, 12) if count <= num_loops], "rules": rules}
    sweep |= {"loss": (2.4 + falling).tolist(), "accuracy": (0.5 - falling / 4).tolist()}
    sweep["frozen_loss"] = (2.5 + falling).tolist()
    for key in ("relative_change", "curvature_ratio", "distance_to_last"):
        sweep[key] = falling.tolist()
    sweep["angle_degrees"] = (90 * falling).tolist()
    accuracy = {str(count): {str(hops): 1 / max(1, hops / count) for hops in (1, 2, 4)} for count in (1, 4)}
    results = [
        {"task": task, "num_loops": loops, "exit_rule": None, "mean_loops": loops, "metrics": {"acc": loops / 16}}
        for task in ("piqa_local", "core_copa")
        for loops in (8, 4)
    ]
    solved = {count: sum(shares.values()) / 3 for count, shares in accuracy.items()}
    reasoning = {"mean_depth": 4.0, "solved": {"data/p-hop": solved}, "accuracy": {"data/p-hop": accuracy}}
    return {"depth-sweep": sweep, "reasoning": reasoning, "tasks": {"results": results}}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a run directory and returns its path."""

    def make(
        *overrides: str,
        num_steps: int = 2000,
        num_loops: int = 12,
        log_every: int = 10,
        validated: tuple[int, ...] = (1, 2, 4, 8, 12),
        lines: list[dict[str, Any]] | None = None,
        trace_every: int | None = None,
        num_layers: int = 2,
        num_experts: int = 8,
        name: str = "run",
        is_evaluated: bool = False,
        text: tuple[str, float | None] | None = None,
    ) -> Path:
        config = load(["run.name=quickstart-moe", "depth.mean=8", f"run.num_steps={num_steps}", *overrides])
        directory = tmp_path / name
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(encode_run(config)))
        if lines is None:
            lines = list(fake_metrics(num_steps, num_loops, log_every, validated))
        if trace_every is not None:
            telemetry, arrays = fake_telemetry(num_steps, num_loops, trace_every, num_layers, num_experts)
            lines[1:] = sorted([*lines[1:], *telemetry], key=lambda line: line["step"])
            write_lines(directory / records.TRACE_FILE_NAME, arrays)
        write_lines(directory / records.FILE_NAME, lines)
        if text is not None:  # the tokenizer's SHA-256, and the bytes per token of the held-out text
            kept = {"data_fingerprint": "f" * 16, "tokenizer_sha256": text[0], "separator_id": 0}
            (directory / "data.json").write_text(json.dumps(kept | {"validation_bytes_per_token": text[1]}))
        for study, results in fake_studies(num_loops).items() if is_evaluated else ():
            write_study(directory, study, results)
        return directory

    return make
