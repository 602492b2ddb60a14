"""A loss on one rank that is not finite skips the step on all ranks, at every ZeRO stage."""

from pathlib import Path

import pytest
import torch
from helpers import recorded, saved

from mythos.config import records
from parallel.ranks import run_cases

LAYOUTS = {
    "ddp": ["parallel=ddp"],
    "zero1-ep2": ["parallel=zero1", "parallel.ep_size=2"],
    "zero2": ["parallel=zero2", "data.micro_batch_size=4"],
    "zero3-ep2": ["parallel=zero3", "parallel.ep_size=2"],
    "offloaded": ["parallel=zero2", "parallel.offload_optimizer=true"],
    "bf16-weights": ["parallel=zero2", "parallel.precision=bf16_weights"],
}
OPTIONS = ["--nan", "run.checkpoint={every: 1, keep_last: 9}", "optim.clip_norm=0.5"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("guard") / "runs"
    run_cases(folder, 2, packed, [[*layout, *OPTIONS] for layout in LAYOUTS.values()])
    return {name: folder / f"case-{index}" for index, name in enumerate(LAYOUTS)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_nan_on_one_rank_skips_the_step_on_all(runs, name: str) -> None:
    run = runs[name]
    assert recorded(run, records.guard("not_finite")) == {3: 1.0}
    second, third, fourth = (saved(run, step) for step in (2, 3, 4))
    assert second.keys() == third.keys()
    assert all(torch.equal(second[key], third[key]) for key in second), "the skipped step changed a tensor"
    assert not torch.equal(third["embedding.weight|weight"], fourth["embedding.weight|weight"])
    assert fourth["embedding.weight|step"].item() == 3
    assert all(tensor.isfinite().all() for tensor in fourth.values())
