"""What is recorded does not depend on who holds what: every number of a run on ranks is that of a run alone."""

import json
from pathlib import Path

import pytest

from parallel.ranks import run_cases

OPTIONS = ["tracking.trace_every=2", "tracking.trace_rows=8", "tracking.jacobian_every=4", "run.validation.every=2"]
LAYOUTS = {
    "ddp": ["parallel=ddp"],
    "zero1-ep2": ["parallel=zero1", "parallel.ep_size=2"],
    "zero2": ["parallel=zero2"],
    "zero3-ep2": ["parallel=zero3", "parallel.ep_size=2"],
    "zero3-remat": ["parallel=zero3", "parallel.remat=loop"],
    "offloaded": ["parallel=zero2", "parallel.offload_optimizer=true"],
}
OF_THE_MACHINE = ("speed/", "memory/", "time")


def records_of(run: Path) -> dict[tuple[int, str], float]:
    """Every number by step and name, but those that measure the machine."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[1:]]
    return {
        (line["step"], name): value
        for line in lines
        for name, value in line.items()
        if not name.startswith(OF_THE_MACHINE)
    }


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> dict[str, dict[tuple[int, str], float]]:
    folder = tmp_path_factory.mktemp("records")
    run_cases(folder / "one", 1, packed, [["data.micro_batch_size=8", "run.validation.num_batches=2", *OPTIONS]])
    run_cases(
        folder / "two", 2, packed, [["data.micro_batch_size=4", *OPTIONS, *layout] for layout in LAYOUTS.values()]
    )
    two = {name: records_of(folder / "two" / f"case-{index}") for index, name in enumerate(LAYOUTS)}
    return {"alone": records_of(folder / "one" / "case-0"), **two}


@pytest.mark.parametrize("name", LAYOUTS)
def test_ranks_record_what_one_process_records(recorded, name: str) -> None:
    ours, theirs = recorded[name], recorded["alone"]
    assert ours.keys() == theirs.keys()
    names = {name for _, name in theirs}
    assert {"train/loss", "train/grad_norm", "val/loss/T08", "loop/gradient_norm/t00", "injection/decay_max"} <= names
    wrong = {key: (ours[key], value) for key, value in theirs.items() if ours[key] != pytest.approx(value, rel=2e-4)}
    assert not wrong
