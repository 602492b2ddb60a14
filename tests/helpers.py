"""Small configurations and batches for tests, and the cases that tests run."""

import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mythos.checkpoint.fragments import Fragment, FragmentReader
from mythos.checkpoint.manifest import Manifest
from mythos.checkpoint.store import Saving
from mythos.config.load import load
from mythos.config.model import ModelConfig
from mythos.config.run import RunConfig
from mythos.model.mythos import Mythos
from mythos.types import Batch

MODELS = ("debug", "debug-dense", "debug-mla")


def model_config(name: str = "debug", **changes: Any) -> ModelConfig:
    """A model configuration from ``conf/model`` with fields replaced."""
    return replace(_model_config(name), **changes)


@cache
def _model_config(name: str) -> ModelConfig:
    return run_config(f"model={name}").model


def run_config(*overrides: str) -> RunConfig:
    """The run configuration that these overrides compose."""
    return load(["model=debug", *overrides])


def random_model(config: ModelConfig, seed: int = 0) -> Mythos:
    """A model whose parameters are all random and none zero, so that every path carries signal."""
    model = Mythos(config)
    fill(model, seed)
    return model


@torch.no_grad()
def fill(module: nn.Module, seed: int = 0) -> None:
    """Random values of a scale that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.dim() >= 2:
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
        else:
            parameter.normal_(mean=1.0 if "norm" in name else 0.0, std=0.1, generator=generator)


def random_batch(config: ModelConfig, batch: int = 3, length: int = 13, num_documents: int = 1, seed: int = 0) -> Batch:
    """A micro-batch that is a whole step, each window cut into documents of random length."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(config.vocab_size, (batch, length + 1), generator=generator)
    cuts = torch.rand(batch, length, generator=generator).argsort(-1) < num_documents
    cuts[:, 0] = False
    ids = cuts.cumsum(-1) if num_documents > 1 else torch.zeros(batch, length, dtype=torch.long)
    return Batch(
        tokens_BS=tokens[:, :-1],
        targets_BS=tokens[:, 1:].clone(),
        positions_BS=positions(ids),
        document_ids_BS=ids,
        sample_ids_B=torch.arange(batch),
        num_targets=torch.tensor(float(batch * length)),
        num_sequences=torch.tensor(float(batch)),
    )


def positions(document_ids_BS: Tensor) -> Tensor:
    """Positions that restart with each document."""
    place = torch.arange(document_ids_BS.shape[1]).expand_as(document_ids_BS)
    is_start = torch.ones_like(document_ids_BS, dtype=torch.bool)
    is_start[:, 1:] = document_ids_BS[:, 1:] != document_ids_BS[:, :-1]
    return place - torch.where(is_start, place, 0).cummax(-1).values


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """A copy of every gradient, by parameter name."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|, in double precision."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def recorded(run: Path, name: str) -> dict[int, float]:
    """One metric of a run's ``metrics.jsonl``, by step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def metrics_by_step(run: Path) -> dict[int, dict]:
    """All metrics of each step, from ``metrics.jsonl``."""
    merged: dict[int, dict] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines()[1:]:
        record = json.loads(line)
        record.pop("time")
        merged.setdefault(record["step"], {}).update(record)
    return merged


def saved(run: Path, step: int) -> dict[str, Tensor]:
    """Everything in a checkpoint's shards, whole, by ``name|field``."""
    reader = FragmentReader(run / "checkpoints" / f"step-{step:08d}")
    return {f"{name}|{field}": reader.tensor(name, field) for name in reader.names for field in reader.fields(name)}


def assert_same_with_gradients(
    found: Tensor,
    inputs: Sequence[Tensor],
    exact: Tensor,
    exact_inputs: Sequence[Tensor],
    grad: Tensor,
    tolerance: float,
) -> None:
    """Two outputs, and what a gradient of the output gives for the inputs of each, relative to their norms."""
    pairs = zip(
        (found, *torch.autograd.grad(found, inputs, grad.to(found.dtype))),
        (exact, *torch.autograd.grad(exact, exact_inputs, grad)),
        strict=True,
    )
    for ours, theirs in pairs:
        assert relative_error(ours, theirs) < tolerance


def save_checkpoint(
    directory: Path,
    manifest: Manifest,
    fragments: Sequence[Fragment],
    shapes: dict[str, tuple[int, ...]],
    state: dict[str, Any],
) -> Path:
    """Write a checkpoint from one process."""
    saving = Saving(directory, manifest.step, rank=0, world_size=1)
    saving.begin()
    saving.write(fragments, shapes, state)
    return saving.finish(manifest, timeout_seconds=0)


def empty_checkpoint(directory: Path, step: int) -> Path:
    """Write a valid checkpoint without tensors."""
    manifest = Manifest(
        step=step,
        tokens=step,
        next_sample=step,
        config={},
        fingerprint="f",
        data_fingerprint="d",
        code_version="0",
        layout={},
    )
    return save_checkpoint(directory, manifest, [], {}, {"position": step})


def wait_until(condition: Callable[[], bool], poll_seconds: float = 0.02) -> None:
    """Return when the condition holds. The bound is that of pytest on the whole test."""
    while not condition():
        time.sleep(poll_seconds)


def children_cpu_seconds() -> float:
    """CPU seconds of all child processes that have ended; other processes of the machine do not change them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def pairwise(*factors: Sequence[Any]) -> list[tuple]:
    """Return a few combinations of the factors' values in which each pair of values of two factors occurs.

    Of all combinations, the next one covers the most pairs that are not covered yet; the first of equals is taken.
    """
    matrix = list(product(*factors))
    missing = set().union(*map(pairs, matrix))
    cases = []
    while missing:
        cases.append(max(matrix, key=lambda case: len(pairs(case) & missing)))
        missing -= pairs(cases[-1])
    return cases


def pairs(case: tuple) -> set[tuple]:
    """Every pair of two values in a case, with their positions."""
    return set(combinations(enumerate(case), 2))


def product_cases(*factors: Sequence[Any]) -> list[Any]:
    """Every combination as a parameter of a test; ``-m all`` runs those that ``pairwise`` leaves out."""
    few = pairwise(*factors)
    return [pytest.param(*case, marks=[] if case in few else pytest.mark.all) for case in product(*factors)]
