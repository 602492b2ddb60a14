"""Metrics do not depend on the layout: every metric of a run on two ranks equals that of one process."""

import json
from pathlib import Path
from typing import Any

import pytest

from mythos.config import records
from parallel.ranks import run_cases

OPTIONS = ["telemetry.trace_every=2", "telemetry.trace_rows=8", "telemetry.jacobian_every=4", "run.validation.every=2"]
LAYOUTS = {
    "ddp": ["parallel=ddp"],
    "zero1-ep2": ["parallel=zero1", "parallel.ep_size=2"],
    "zero2": ["parallel=zero2"],
    "zero3-ep2": ["parallel=zero3", "parallel.ep_size=2"],
    "zero3-remat": ["parallel=zero3", "parallel.remat=loop"],
    "offloaded": ["parallel=zero2", "parallel.offload_optimizer=true"],
}
HALTING = {"ponder": ["halting=ponder"], "act": ["halting=act"]}
"""Learned exits, whose loss reads every loop; on ZeRO 2."""
MACHINE_METRICS = ("speed/", "memory/", "time", "alarm/straggler", "alarm_figure/straggler", "alarm_limit/straggler")


def records_of(run: Path) -> dict[tuple[int, str], float]:
    """Every metric by step and name, except those that measure the machine."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[1:]]
    return {
        (line["step"], name): value
        for line in lines
        for name, value in line.items()
        if not name.startswith(MACHINE_METRICS)
    }


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> dict[str, tuple[dict, dict]]:
    """By case, the metrics of two ranks and those of one process."""
    folder = tmp_path_factory.mktemp("records")
    learned = [[*halting, "depth.num_grad_loops=32"] for halting in HALTING.values()]
    alone = [["data.micro_batch_size=8", "run.validation.num_batches=2", *OPTIONS, *case] for case in [[], *learned]]
    layouts = [*LAYOUTS.values(), *(["parallel=zero2", *case] for case in learned)]
    run_cases(folder / "one", 1, packed, alone)
    run_cases(folder / "two", 2, packed, [["data.micro_batch_size=4", *OPTIONS, *layout] for layout in layouts])
    references = dict.fromkeys(LAYOUTS, 0) | {name: 1 + index for index, name in enumerate(HALTING)}
    return {
        name: (records_of(folder / "two" / f"case-{index}"), records_of(folder / "one" / f"case-{reference}"))
        for index, (name, reference) in enumerate(references.items())
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LAYOUTS, *HALTING])
def test_two_ranks_record_the_metrics_of_one_process(recorded, name: str) -> None:
    ours, theirs = recorded[name]
    assert ours.keys() == theirs.keys()
    names = {name for _, name in theirs}
    assert {"train/loss", "train/grad_norm", "val/loss/T08", "loop/gradient_norm/t00", "injection/decay_max"} <= names
    assert ("halting/expected_loops" in names) == (name in HALTING)
    wrong = {key: (ours[key], value) for key, value in theirs.items() if ours[key] != expected(key[1], value)}
    assert not wrong


def expected(name: str, value: float) -> Any:
    """A metric to 2e-4 of itself; a difference of two losses to 1e-6 of a loss of 6 nats."""
    return pytest.approx(value, abs=6e-6) if name == records.LOSS_GAIN else pytest.approx(value, rel=2e-4)
