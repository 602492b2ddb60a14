"""Sharding by the engine changes no result: every layout is compared with one process without an engine, in fp32."""

from itertools import product, starmap
from pathlib import Path
from typing import NamedTuple

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
INSIDE = ("0.gate", "1.mix")
"""Weights of cross-loop attention and value residual inside the attention of a block."""
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


ONE_STEP = ["--sgd", "run.num_steps=1", "optim.clip_norm=null", OUTPUT_SCALE]
"""One step of plain gradient descent."""


class References(NamedTuple):
    """One process, one micro-batch a step, no engine."""

    clipped: Result
    unclipped: Result
    stepped: Result

    def of(self, case: tuple) -> Result:
        """What four steps in this layout are compared with."""
        return self.unclipped if clipping(*case[:2]) else self.clipped


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> References:
    whole = "data.micro_batch_size=8"
    cases = [[whole], [whole, "optim.clip_norm=null"], [whole, *ONE_STEP]]
    return References(*run_cases(tmp_path_factory.mktemp("references") / "runs", 1, packed, cases))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> tuple[dict[tuple, Result], dict[tuple, Result]]:
    """By case, four steps and one step of plain gradient descent."""
    cases = [overrides(*case) for case in PAIRWISE]
    cases += [[*case, *ONE_STEP] for case in cases]
    results = run_cases(tmp_path_factory.mktemp("trained") / "runs", 2, packed, cases)
    return dict(zip(PAIRWISE, results[:8], strict=True)), dict(zip(PAIRWISE, results[8:], strict=True))


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
def test_training_does_not_depend_on_the_layout(trained, references, case: tuple) -> None:
    assert_equal_training(trained[0][case], references.of(case), case)


def test_the_reference_varies_in_depth_and_is_clipped(references) -> None:
    """The cases above assume both."""
    assert len({counts.shape[0] for counts in references.clipped.counts}) > 1
    assert references.unclipped.losses != pytest.approx(references.clipped.losses, rel=1e-5)


@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_gradients_do_not_depend_on_the_layout(trained, references, case: tuple) -> None:
    model = run_config(OUTPUT_SCALE).model
    initial = Mythos(model)
    initialize(initial, model, seed=0)
    for name, start in initial.named_parameters():
        expected = (start - references.stepped.weights[name]) / SGD_RATE
        found = (start - trained[1][case].weights[name]) / SGD_RATE
        assert expected.norm() > 1e-6, f"{name} has no gradient"
        assert relative_error(found, expected) < 1e-6, (case, name)


@pytest.mark.all
def test_training_does_not_depend_on_the_layout_in_any_combination(tmp_path: Path, packed: Path, references) -> None:
    results = run_cases(tmp_path / "runs", 2, packed, list(starmap(overrides, REST)))
    for case, result in zip(REST, results, strict=True):
        assert_equal_training(result, references.of(case), case)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cases", [pytest.param(SHARED, id="pairwise"), pytest.param(SHARED_REST, id="rest", marks=pytest.mark.all)]
)
def test_an_engine_receives_the_gradients_of_shared_weights(
    tmp_path: Path, packed: Path, references, cases: list[tuple]
) -> None:
    """Gradient accumulators reach the engine as gradients do, however it reduces them between micro-batches."""
    results = run_cases(tmp_path / "runs", 2, packed, [[*overrides(*case), "--share"] for case in cases])
    for case, result in zip(cases, results, strict=True):
        assert_equal_training(result, references.of(case), case)


@pytest.mark.slow
def test_four_ranks_train_like_one(tmp_path: Path, packed: Path, references) -> None:
    cases = [(1, 4, "loop", 2), (2, 2, "none", 2), (3, 2, "loop", 2), (3, 4, "none", 2), (1, 2, "none", 2)]
    results = run_cases(tmp_path / "runs", 4, packed, list(starmap(overrides, cases)))
    for case, result in zip(cases, results, strict=True):
        assert_equal_training(result, references.clipped, case)


@pytest.mark.slow
def test_quantile_balancing_does_not_depend_on_the_layout(tmp_path: Path, packed: Path) -> None:
    """Margins are counted per sequence and summed over micro-batches and ranks."""
    balanced = ["balance=quantile", "model.core_ffn.num_active=1", "objective.router_z_loss=1e-2", OUTPUT_SCALE]
    layouts = [(1, 2, "none", 2), (3, 1, "loop", 4)]
    [expected] = run_cases(tmp_path / "one", 1, packed, [["data.micro_batch_size=8", *balanced]])
    found = run_cases(tmp_path / "two", 2, packed, [[*overrides(*layout), *balanced] for layout in layouts])
    bias_LRE = expected.weights["core.router_bias"]
    assert bias_LRE.abs().amax() > 0.01
    for layout, result in zip(layouts, found, strict=True):
        assert result.losses == pytest.approx(expected.losses, rel=1e-5), layout
        # A margin at the edge of a bin may be rounded to the other side of it.
        assert relative_error(result.weights["core.router_bias"], bias_LRE) < 1e-3, layout


@pytest.mark.slow
def test_loop_parts_do_not_depend_on_the_layout(tmp_path: Path, packed: Path) -> None:
    """Parts of several kinds together, opened by large steps; one of them changes the router beside the experts."""
    kinds = "film keep_gate memory_gate cross_loop_attention value_residual film_features depth_lora".split()
    parts = [f"model.loop.parts=[{', '.join(f'{{kind: {kind}}}' for kind in kinds)}]", OUTPUT_SCALE]
    layouts = [(2, 2, "loop", 2), (3, 2, "none", 4)]
    [expected] = run_cases(tmp_path / "one", 1, packed, [["data.micro_batch_size=8", *parts]])
    found = run_cases(tmp_path / "two", 2, packed, [[*overrides(*layout), *parts] for layout in layouts])
    assert expected.weights["core.parts.2.cell.opening"].abs().amax() > 1e-3
    for name in INSIDE:
        assert expected.weights[f"core.blocks.1.attention.part.parts.{name}.weight"].abs().amax() > 5e-4
    assert expected.weights["core.blocks.0.router_part.parts.0.router_up.weight"].abs().amax() > 1e-3
    for layout, result in zip(layouts, found, strict=True):
        assert_equal_training(result, expected, layout)


@pytest.mark.slow
def test_lanes_slots_registers_and_routers_do_not_depend_on_the_layout(tmp_path: Path, packed: Path) -> None:
    kinds = ("depth_attention", "lanes", "loop_average", "memory_tokens", "loop_router")
    parts = [f"model.loop.parts=[{', '.join(f'{{kind: {kind}}}' for kind in kinds)}]", OUTPUT_SCALE]
    layouts = [(2, 2, "loop", 2), (3, 2, "none", 4)]
    [expected] = run_cases(tmp_path / "one", 1, packed, [["data.micro_batch_size=8", *parts]])
    found = run_cases(tmp_path / "two", 2, packed, [[*overrides(*layout), *parts] for layout in layouts])
    inside = "blocks.1.attention.part.parts.0.gate.weight"
    for name in ("parts.0.write.opening", "parts.1.read.weight", "parts.2.weights.weight", inside):
        assert expected.weights[f"core.{name}"].abs().amax() > 5e-4, name
    for layout, result in zip(layouts, found, strict=True):
        assert_equal_training(result, expected, layout)
