"""Sharding by the engine changes no result: every layout is compared with one process without an engine, in fp32."""

from itertools import product, starmap
from pathlib import Path

import pytest
import torch
from helpers import pairwise, relative_error, run_config

from mythos.model.init import initialize
from mythos.model.mythos import Mythos
from parallel.ranks import Result, run_cases
from parallel.worker import SGD_RATE

OUTPUT_SCALE = "model.output_scale=0.25"
"""Output projections that start at zero would leave nearly every gradient zero; with large ones, depth amplifies the
rounding, which differs between processors."""
FACTORS = ((0, 1, 2, 3), (1, 2), ("none", "loop"), (2, 4))
"""Stages of ZeRO, ranks that share experts, what is recomputed, sequences in a micro-batch."""
PAIRWISE = pairwise(*FACTORS)
REST = [case for case in product(*FACTORS) if case not in PAIRWISE]
SHARED_FACTORS = ((0, 1, 2), (1, 2), (("none", 2), ("none", 4), ("loop", 2)))
"""Where weight copies are shared: not under stage 3."""
SHARED = [(*layout, *rest) for *layout, rest in pairwise(*SHARED_FACTORS)]
SHARED_REST = [case for *layout, rest in product(*SHARED_FACTORS) if (case := (*layout, *rest)) not in SHARED]


def overrides(stage: int, ep_size: int, remat: str, micro_batch_size: int) -> list[str]:
    """Two ranks take 8 sequences a step: two micro-batches of 2, or one of 4.

    Gradients are not clipped at stage 0 with expert ranks, which the configuration refuses.
    """
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
def trained(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> dict[tuple, Result]:
    folder = tmp_path_factory.mktemp("trained") / "runs"
    return dict(zip(PAIRWISE, run_cases(folder, 2, packed, [overrides(*case) for case in PAIRWISE]), strict=True))


def assert_equal_training(found: Result, expected: Result, case: tuple) -> None:
    """Losses are equal to 1e-6 over four AdamW steps, and every token is routed to the same experts."""
    assert len(found.losses) == 4
    assert found.losses == pytest.approx(expected.losses, rel=1e-6), case
    for step, (ours, theirs) in enumerate(zip(found.counts, expected.counts, strict=True)):
        assert torch.equal(ours, theirs), f"{case}: the routing differs in step {step}"
    assert found.weights.keys() == expected.weights.keys()
    assert torch.equal(found.weights["core.router_bias"], expected.weights["core.router_bias"])
    for name, weight in expected.weights.items():
        # AdamW divides small gradients by their own size, which amplifies their rounding.
        assert relative_error(found.weights[name], weight) < 1e-4, (case, name)


@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_training_does_not_depend_on_the_layout(trained, reference, case: tuple) -> None:
    stage, ep_size, _, _ = case
    assert_equal_training(trained[case], reference[not clipping(stage, ep_size)], case)


def test_the_reference_varies_in_depth_and_is_clipped(reference) -> None:
    """The cases above assume both."""
    assert len({counts.shape[0] for counts in reference[True].counts}) > 1
    assert reference[False].losses != pytest.approx(reference[True].losses, rel=1e-5)


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> dict[object, Result]:
    """One step of plain gradient descent by case; the key None is one process."""
    folder, one_step = tmp_path_factory.mktemp("stepped"), ["run.num_steps=1", "optim.clip_norm=null", OUTPUT_SCALE]
    (one,) = run_cases(folder / "one", 1, packed, [["data.micro_batch_size=8", *one_step]], "--sgd")
    two = run_cases(folder / "two", 2, packed, [[*overrides(*case), *one_step] for case in PAIRWISE], "--sgd")
    return {None: one, **dict(zip(PAIRWISE, two, strict=True))}


@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_gradients_do_not_depend_on_the_layout(stepped, case: tuple) -> None:
    model = run_config(OUTPUT_SCALE).model
    initial = Mythos(model)
    initialize(initial, model, seed=0)
    for name, start in initial.named_parameters():
        expected = (start - stepped[None].weights[name]) / SGD_RATE
        found = (start - stepped[case].weights[name]) / SGD_RATE
        assert expected.norm() > 1e-6, f"{name} has no gradient"
        assert relative_error(found, expected) < 1e-6, (case, name)


@pytest.mark.all
def test_training_does_not_depend_on_the_layout_in_any_combination(tmp_path: Path, packed: Path, reference) -> None:
    results = run_cases(tmp_path / "runs", 2, packed, list(starmap(overrides, REST)))
    for case, result in zip(REST, results, strict=True):
        assert_equal_training(result, reference[not clipping(*case[:2])], case)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cases", [pytest.param(SHARED, id="pairwise"), pytest.param(SHARED_REST, id="rest", marks=pytest.mark.all)]
)
def test_an_engine_receives_the_gradients_of_shared_weights(
    tmp_path: Path, packed: Path, reference, cases: list[tuple]
) -> None:
    """Gradient accumulators reach the engine as gradients do, however it reduces them between micro-batches."""
    results = run_cases(tmp_path / "runs", 2, packed, list(starmap(overrides, cases)), "--share")
    for case, result in zip(cases, results, strict=True):
        assert_equal_training(result, reference[not clipping(*case[:2])], case)


@pytest.mark.slow
def test_four_ranks_train_like_one(tmp_path: Path, packed: Path, reference) -> None:
    cases = [(1, 4, "loop", 2), (2, 2, "none", 2), (3, 2, "loop", 2), (3, 4, "none", 2), (1, 2, "none", 2)]
    results = run_cases(tmp_path / "runs", 4, packed, list(starmap(overrides, cases)))
    for case, result in zip(cases, results, strict=True):
        assert_equal_training(result, reference[True], case)
