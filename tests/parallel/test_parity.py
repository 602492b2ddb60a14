"""The engine's sharding changes no result: every layout against one process without an engine, in fp32."""

from itertools import product, starmap
from pathlib import Path

import pytest
import torch
from helpers import relative_error, run_config

from mythos.model.init import initialize
from mythos.model.mythos import Mythos
from parallel.ranks import Result, run_cases
from parallel.worker import SGD_RATE

ALIVE = "model.output_scale=0.25"
"""Output projections that start at zero would leave nearly every gradient zero; large ones let depth amplify rounding,
which differs from processor to processor."""
ZERO, EXPERTS, REMAT, MICRO_BATCH = (0, 1, 2, 3), (1, 2), ("none", "loop"), (2, 4)
MATRIX = list(product(ZERO, EXPERTS, REMAT, MICRO_BATCH))
PAIRWISE = [
    (0, 1, "none", 2),
    (0, 2, "loop", 4),
    (1, 1, "loop", 4),
    (1, 2, "none", 2),
    (2, 1, "none", 4),
    (2, 2, "loop", 2),
    (3, 1, "loop", 2),
    (3, 2, "none", 4),
]
"""Every pair of values of two axes once."""


def overrides(stage: int, ep_size: int, remat: str, micro_batch_size: int) -> list[str]:
    """Two ranks take 8 sequences a step: two micro-batches of 2, or one of 4. Without ZeRO, expert ranks clip not."""
    parallel = ["parallel=zero1", f"parallel.zero_stage={stage}", f"parallel.ep_size={ep_size}"]
    rest = [f"parallel.remat={remat}", f"data.micro_batch_size={micro_batch_size}"]
    return [*parallel, *rest, *clipping(stage, ep_size)]


def clipping(stage: int, ep_size: int) -> list[str]:
    return ["optim.clip_norm=null"] if stage == 0 and ep_size > 1 else []


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> dict[bool, Result]:
    """One process, one micro-batch a step, no engine; with and without clipping."""
    folder = tmp_path_factory.mktemp("reference") / "runs"
    whole = "data.micro_batch_size=8"
    results = run_cases(folder, 1, packed, [[whole], [whole, "optim.clip_norm=null"]])
    return dict(zip((True, False), results, strict=True))


@pytest.fixture(scope="module")
def pairwise(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> dict[tuple, Result]:
    folder = tmp_path_factory.mktemp("pairwise") / "runs"
    return dict(zip(PAIRWISE, run_cases(folder, 2, packed, [overrides(*case) for case in PAIRWISE]), strict=True))


def assert_equal_training(found: Result, expected: Result, case: tuple) -> None:
    """In the sense of the project: losses to 1e-6 over four AdamW steps, every choice of an expert the same."""
    assert len(found.losses) == 4
    assert found.losses == pytest.approx(expected.losses, rel=1e-6), case
    for step, (ours, theirs) in enumerate(zip(found.counts, expected.counts, strict=True)):
        assert torch.equal(ours, theirs), f"{case}: experts were chosen differently in step {step}"
    assert found.weights.keys() == expected.weights.keys()
    assert torch.equal(found.weights["core.router_bias"], expected.weights["core.router_bias"])
    for name, weight in expected.weights.items():
        # AdamW divides small gradients by their own size, so their rounding shows in full.
        assert relative_error(found.weights[name], weight) < 1e-4, (case, name)


@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_training_does_not_depend_on_the_layout(pairwise, reference, case: tuple) -> None:
    stage, ep_size, _, _ = case
    assert_equal_training(pairwise[case], reference[not clipping(stage, ep_size)], case)


def test_depth_varied_and_clipping_bit(reference) -> None:
    """What the cases above take for granted."""
    assert len({counts.shape[0] for counts in reference[True].counts}) > 1
    assert reference[False].losses != pytest.approx(reference[True].losses, rel=1e-5)


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> dict[object, Result]:
    """One step of plain gradient descent by case, and of one process under None."""
    folder, once = tmp_path_factory.mktemp("stepped"), ["run.num_steps=1", "optim.clip_norm=null", ALIVE]
    (one,) = run_cases(folder / "one", 1, packed, [["data.micro_batch_size=8", *once]], "--sgd")
    two = run_cases(folder / "two", 2, packed, [[*overrides(*case), *once] for case in PAIRWISE], "--sgd")
    return {None: one, **dict(zip(PAIRWISE, two, strict=True))}


@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_gradients_do_not_depend_on_the_layout(stepped, case: tuple) -> None:
    model = run_config(ALIVE).model
    initial = Mythos(model)
    initialize(initial, model, seed=0)
    for name, start in initial.named_parameters():
        expected = (start - stepped[None].weights[name]) / SGD_RATE
        found = (start - stepped[case].weights[name]) / SGD_RATE
        assert expected.norm() > 1e-6, f"{name} has no gradient"
        assert relative_error(found, expected) < 1e-6, (case, name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_does_not_depend_on_the_layout_in_any_combination(tmp_path: Path, packed: Path, reference) -> None:
    cases = [case for case in MATRIX if case not in PAIRWISE]
    results = run_cases(tmp_path / "runs", 2, packed, list(starmap(overrides, cases)))
    for case, result in zip(cases, results, strict=True):
        assert_equal_training(result, reference[not clipping(*case[:2])], case)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_engine_finds_the_gradients_of_shared_weights(tmp_path: Path, packed: Path, reference) -> None:
    """Sums arrive as gradients do, whatever the engine does with these between micro-batches."""
    cases = [case for case in MATRIX if case[0] < 3 and case[2:] != ("loop", 4)]
    results = run_cases(tmp_path / "runs", 2, packed, list(starmap(overrides, cases)), "--share")
    for case, result in zip(cases, results, strict=True):
        assert_equal_training(result, reference[not clipping(*case[:2])], case)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_ranks_train_like_one(tmp_path: Path, packed: Path, reference) -> None:
    cases = [(1, 4, "loop", 2), (2, 2, "none", 2), (3, 2, "loop", 2), (3, 4, "none", 2), (1, 2, "none", 2)]
    results = run_cases(tmp_path / "runs", 4, packed, list(starmap(overrides, cases)))
    for case, result in zip(cases, results, strict=True):
        assert_equal_training(result, reference[True], case)
