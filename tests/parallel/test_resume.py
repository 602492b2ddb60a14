"""A run resumes from a checkpoint bitwise in its own layout, and with the same curve in any other."""

from pathlib import Path

import pytest
import torch
from helpers import saved

from parallel.ranks import Result, run_cases

pytestmark = pytest.mark.slow

EIGHT_STEPS = ["run.num_steps=8", "run.checkpoint.every=4"]
LAYOUTS = {
    "ddp": ["parallel=ddp"],
    "zero1": ["parallel=zero1"],
    "zero1-ep2": ["parallel=zero1", "parallel.ep_size=2"],
    "zero2-ep2": ["parallel=zero2", "parallel.ep_size=2"],
    "zero3-ep2": ["parallel=zero3", "parallel.ep_size=2"],
}
WHOLE = ["data.micro_batch_size=8", *EIGHT_STEPS]
"""One process without an engine."""


def checkpoint(folder: Path, index: int) -> str:
    return f"resume={folder / f'case-{index}' / 'checkpoints' / 'step-00000004'}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> tuple[Path, Result]:
    """A run of one process with checkpoints after four and eight steps."""
    folder = tmp_path_factory.mktemp("alone") / "runs"
    (result,) = run_cases(folder, 1, packed, [WHOLE])
    return folder, result


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, packed: Path, alone) -> tuple[Path, dict[str, list[Result]]]:
    """By layout: eight steps, and the last four of them resumed from a checkpoint of the same layout, of one process,
    and of the next layout."""
    folder, num_layouts = tmp_path_factory.mktemp("together") / "runs", len(LAYOUTS)
    layouts = [[*layout, *EIGHT_STEPS] for layout in LAYOUTS.values()]
    cases = [
        *layouts,
        *([*layout, checkpoint(folder, index)] for index, layout in enumerate(layouts)),
        *([*layout, checkpoint(alone[0], 0)] for layout in layouts),
        *([*layout, checkpoint(folder, (index + 1) % num_layouts)] for index, layout in enumerate(layouts)),
    ]
    results = run_cases(folder, 2, packed, cases)
    return folder, {name: results[index::num_layouts] for index, name in enumerate(LAYOUTS)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_layout_resumes_bitwise(together, name: str) -> None:
    folder, results = together
    whole, resumed, _, _ = results[name]
    assert resumed.losses == whole.losses[4:]
    index = list(LAYOUTS).index(name)
    ours, theirs = saved(folder / f"case-{index}", 8), saved(folder / f"case-{index + len(LAYOUTS)}", 8)
    assert ours.keys() == theirs.keys()
    assert {key.split("|")[1] for key in ours} == {"weight", "exp_avg", "exp_avg_sq", "step"}
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


@pytest.mark.parametrize("name", LAYOUTS)
def test_more_ranks_and_expert_ranks_continue_the_curve(together, alone, name: str) -> None:
    assert_continues(together[1][name][2], alone[1])


def test_one_process_continues_the_curve_of_any_layout(together, alone, tmp_path: Path, packed: Path) -> None:
    cases = [[*WHOLE, checkpoint(together[0], index)] for index in range(len(LAYOUTS))]
    for result in run_cases(tmp_path / "runs", 1, packed, cases):
        assert_continues(result, alone[1])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_resumes_in_another(together, alone, name: str) -> None:
    """Each layout from the next one's checkpoint: other stages, one expert rank to two and back."""
    assert_continues(together[1][name][3], alone[1])


def assert_continues(resumed: Result, whole: Result) -> None:
    assert resumed.losses == pytest.approx(whole.losses[4:], rel=1e-6)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(resumed.counts, whole.counts[4:], strict=True))
    assert torch.equal(resumed.weights["core.router_bias"], whole.weights["core.router_bias"])
    assert resumed.weights["core.router_bias"].any()


def test_four_ranks_and_back(alone, tmp_path: Path, packed: Path) -> None:
    """(2 ranks, 2 expert ranks) to (4, 2) and (4, 4), and from there to (2, 1)."""
    run_cases(tmp_path / "first", 2, packed, [[*LAYOUTS["zero1-ep2"], *EIGHT_STEPS]])
    two_two = checkpoint(tmp_path / "first", 0)
    four = [["parallel=zero1", "parallel.ep_size=2"], ["parallel=zero3", "parallel.ep_size=4"]]
    six = ["run.checkpoint.every=2", "run.checkpoint.keep_last=9", "run.num_steps=8"]
    for result in run_cases(tmp_path / "up", 4, packed, [[*layout, *six, two_two] for layout in four]):
        assert_continues(result, alone[1])
    sixth = tmp_path / "up" / "case-1" / "checkpoints" / "step-00000006"
    (back,) = run_cases(tmp_path / "back", 2, packed, [[*LAYOUTS["zero1"], *EIGHT_STEPS, f"resume={sixth}"]])
    assert back.losses == pytest.approx(alone[1].losses[6:], rel=1e-6)


@pytest.mark.parametrize(("forgotten", "named"), [("experts", r"experts\.w\d\|\w+"), ("moments", r"\|exp_avg")])
def test_a_part_that_a_rank_does_not_restore_is_caught(
    alone, tmp_path: Path, packed: Path, forgotten: str, named: str
) -> None:
    case = [*LAYOUTS["zero1-ep2"], *EIGHT_STEPS, checkpoint(alone[0], 0), f"--forget-{forgotten}"]
    with pytest.raises(AssertionError, match=rf"{named} differs from the checkpoint after loading"):
        run_cases(tmp_path / "runs", 2, packed, [case])
