"""Layouts that fit, and overrides that make a run fit."""

import pytest

from mythos.account.peak import named_device
from mythos.account.plan import plan
from mythos.account.search import layouts, remedy, search
from mythos.config.load import load

H100 = named_device("H100")
SMALL = ["model=debug", "optim=adamw", "cluster.num_devices=4", "data.batch_size=16", "data.micro_batch_size=2"]
LARGE = [
    *("model=30b", "optim=adamw", "parallel=zero1", "cluster.num_nodes=16", "cluster.num_devices=8"),
    *("data.seq_len=4096", "data.batch_size=512", "data.micro_batch_size=4", "run.validation.num_batches=128"),
    "parallel.precision=bf16",
]


def test_every_layout_that_the_checks_accept_is_tried_once() -> None:
    result = list(layouts(load([*SMALL, "parallel=zero1"])))
    # Stage 0 cannot clip gradients with ep_size > 1; 3 divisors of 4 ranks, 3 of 4 sequences, 4 remat policies.
    assert len(result) == (1 + 3 * 3) * 3 * 4
    assert len(set(map(str, result))) == len(result)


def test_muon_stays_without_zero() -> None:
    result = list(layouts(load([*SMALL, "parallel=ddp", "optim=muon_adamw"])))
    assert {run.parallel.zero_stage for run in result} == {0}


def test_layouts_that_fit_come_fastest_first() -> None:
    result = search(load(LARGE), H100)
    assert result
    assert all(layout.plan.fits for layout in result)
    speeds = [float(f"{layout.plan.tokens_per_second:.3g}") for layout in result]
    assert speeds == sorted(speeds, reverse=True)


def test_the_remedy_makes_the_run_fit() -> None:
    run = load(LARGE)
    assert not plan(run, H100).fits
    changes = remedy(run, search(run, H100))
    assert changes
    assert plan(load([*LARGE, *changes]), H100).fits


def test_the_optimizer_moves_to_the_host_only_where_nothing_else_fits() -> None:
    overrides = ["model=3b", "optim=adamw", "parallel=zero3", "cluster.num_devices=2", "data.batch_size=2"]
    overrides += ["data.micro_batch_size=1", "data.seq_len=1024", "parallel.precision=bf16", "depth=fixed"]
    overrides += ["depth.num_loops=4"]
    roomy = search(load(overrides), H100)
    assert not any(layout.run.parallel.offload_optimizer for layout in roomy)
    least = min(layout.plan.memory.total for layout in roomy)
    tight = search(load([*overrides, f"parallel.memory_gb={(least - 2**30) / 1e9}"]), H100)
    assert tight
    assert all(layout.run.parallel.offload_optimizer for layout in tight)


@pytest.mark.parametrize("memory_gb", [0.5])
def test_nothing_fits_into_less_than_the_context(memory_gb: float) -> None:
    assert search(load([*SMALL, "parallel=zero1", f"parallel.memory_gb={memory_gb}"]), H100) == []
