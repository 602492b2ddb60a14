import numpy as np
import pytest
import torch
from helpers import MODELS, gradients, model_config, random_batch, random_model, relative_error
from torch import Tensor

from mythos.layers.mask import dense_mask
from mythos.loop.part import LoopInputs
from mythos.loop.remat import Remat
from mythos.loop.sequences import active_rows
from mythos.loop.state import noise
from mythos.model.mythos import Mythos
from mythos.types import Batch, LoopTrace, ModelOutput, Regularizers, take_rows

LOOPS = np.array([2, 6, 1, 3, 2])
NUM_GRAD_LOOPS = 2
NOISE = 3


def looped(name: str = "debug", remat: str = "none", **changes) -> Mythos:
    """A model with fewer table rows than the largest number of loops, and a bias that differs in every loop."""
    model = random_model(model_config(name, max_loops=4, embedding_std=0.5, **changes))
    model.core.router_bias.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    model.core.remat = Remat(remat)
    return model


def window(batch: Batch, row: int) -> Batch:
    """One row as a batch."""
    return take_rows(batch, slice(row, row + 1))


def together(model: Mythos, batch: Batch, **options) -> ModelOutput:
    return model(batch, int(LOOPS.max()), NUM_GRAD_LOOPS, loops_B=LOOPS, noise_seed=NOISE, **options)


def alone(model: Mythos, batch: Batch, **options) -> list[ModelOutput]:
    """The reference implementation: every row alone, with its own number of loops."""
    return [
        model(window(batch, row), int(loops), NUM_GRAD_LOOPS, noise_seed=NOISE, **options)
        for row, loops in enumerate(LOOPS)
    ]


def total(output: ModelOutput) -> Tensor:
    """Loss and penalties as sums over rows and loops."""
    parts = [output.nll_XBS.sum(), 1e-2 * output.lse_XBS.square().sum(), output.change_T[-NUM_GRAD_LOOPS:].sum()]
    if output.router_stats is not None:
        parts += [1e-2 * part[-NUM_GRAD_LOOPS:].sum() for part in output.router_stats[1:3]]
    return torch.stack(parts).sum()


@pytest.mark.parametrize("initial_state", ["noise", "embedding"])
@pytest.mark.parametrize("damping", [1.0, 0.6])
@pytest.mark.parametrize("remat", ["none", "loop", "block"])
@pytest.mark.parametrize("name", MODELS)
def test_rows_together_equal_each_row_alone(name: str, remat: str, damping: float, initial_state: str) -> None:
    model = looped(name, remat, initial_state=initial_state)
    batch = random_batch(model.config, batch=len(LOOPS), num_documents=2)
    options = {"damping": damping, "regularizers": Regularizers(consistency=True)}
    output = together(model, batch, **options)
    total(output).backward()
    result = gradients(model)
    model.zero_grad()
    rows = alone(model, batch, **options)
    sum(map(total, rows)).backward()
    expected = gradients(model)
    assert relative_error(output.nll_XBS, torch.cat([row.nll_XBS for row in rows], 1)) < 1e-6
    assert relative_error(output.lse_XBS, torch.cat([row.lse_XBS for row in rows], 1)) < 1e-6
    assert relative_error(output.state_BSD, torch.cat([row.state_BSD for row in rows])) < 1e-6
    assert result.keys() == expected.keys()
    for parameter, gradient in expected.items():  # products over five rows sum in another order
        assert relative_error(result[parameter], gradient) < 3e-6, parameter


def test_counts_and_trace_are_by_the_loop_of_each_row() -> None:
    model = looped()
    batch = random_batch(model.config, batch=len(LOOPS), num_documents=2)
    output = together(model, batch, trace=True)
    output.nll_XBS.sum().backward()
    rows = alone(model, batch, trace=True)
    sum(row.nll_XBS.sum() for row in rows).backward()
    counts_TLE = torch.zeros_like(output.router_stats.counts_E)
    for row, loops in zip(rows, LOOPS, strict=True):
        counts_TLE[:loops] += row.router_stats.counts_E
    assert torch.equal(output.router_stats.counts_E, counts_TLE)
    assert output.trace.num_rows_T.tolist() == [(loop < LOOPS).sum() for loop in range(LOOPS.max())]
    result, expected = flat(output.trace), [flat(row.trace) for row in rows]
    for name, value in result.items():
        sums = torch.zeros_like(value)
        for row, loops in zip(expected, LOOPS, strict=True):
            place = (slice(loops),) * (2 if name == "overlap_TT" else 1)
            sums[place] += row[name]
        if not name.startswith(("num", "gradient")):
            num_rows_T = output.trace.num_rows_T.view(-1, *[1] * (value.dim() - 1))
            num_rows = torch.minimum(num_rows_T, num_rows_T.T) if name == "overlap_TT" else num_rows_T
            sums /= num_rows
        torch.testing.assert_close(value, sums, rtol=1e-4, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")
    assert result["num_grad_rows_T"].sum() == np.minimum(LOOPS, NUM_GRAD_LOOPS).sum()
    entropy = sum(row.router_stats.entropy.sum() for row in rows)
    torch.testing.assert_close(output.router_stats.entropy.sum(), entropy, rtol=1e-5, atol=0)


def flat(trace: LoopTrace) -> dict[str, Tensor]:
    """Every tensor of a trace of a model without parts, by name."""
    assert trace.gates == ()
    named = trace._asdict() | trace.experts._asdict()
    return {name: part for name, part in named.items() if name not in ("experts", "gates")}


def test_growth_of_each_row_equals_that_of_the_row_alone() -> None:
    model = looped()
    batch = random_batch(model.config, batch=len(LOOPS))
    regularizers = Regularizers(num_power_iterations=2)
    result = together(model, batch, regularizers=regularizers).jacobian_growth_B
    rows = alone(model, batch, regularizers=regularizers)
    # finite differences of 1e-2 amplify rounding by a factor of 100
    torch.testing.assert_close(result, torch.cat([row.jacobian_growth_B for row in rows]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["debug", "debug-dense"])
def test_rows_with_equal_loops_equal_the_plain_batch_bitwise(name: str) -> None:
    model = looped(name)
    batch = random_batch(model.config, batch=3, num_documents=2)
    results = []
    for loops_B in (None, np.full(3, 5)):
        model.zero_grad()
        output = model(batch, 5, NUM_GRAD_LOOPS, loops_B=loops_B, noise_seed=NOISE)
        output.nll_XBS.mean().backward()
        results.append((output, gradients(model)))
    (ours, our_gradients), (theirs, their_gradients) = results
    assert torch.equal(ours.nll_XBS, theirs.nll_XBS)
    assert torch.equal(ours.state_BSD, theirs.state_BSD)
    assert ours.router_stats is None or all(map(torch.equal, ours.router_stats, theirs.router_stats))
    for parameter, gradient in our_gradients.items():
        assert torch.equal(gradient, their_gradients[parameter]), parameter


def test_no_row_runs_more_than_its_own_loops() -> None:
    model = looped()
    batch = random_batch(model.config, batch=len(LOOPS))
    calls: dict[int, list[int]] = {}
    for name, block in model.named_modules():
        if name.startswith("core.blocks.") and name.count(".") == 2:
            block.register_forward_hook(
                lambda _, arguments, __, n=name: calls.setdefault(n, []).append(len(arguments[0]))
            )
    together(model, batch)
    assert calls == {f"core.blocks.{layer}": active_rows(LOOPS) for layer in range(len(model.core.blocks))}
    assert sum(calls["core.blocks.0"]) == LOOPS.sum()


@pytest.mark.parametrize("remat", ["none", "loop", "block"])
@pytest.mark.parametrize("damping", [1.0, 0.3])
def test_damped_loops_equal_the_formula(damping: float, remat: str) -> None:
    model = looped(remat=remat)
    batch = random_batch(model.config, num_documents=2)
    output = model(batch, 5, 3, noise_seed=NOISE, damping=damping)
    output.nll_XBS.mean().backward()
    result = gradients(model)
    model.zero_grad()

    rotation, mask = model._rotation(batch.positions_BS), dense_mask(batch.document_ids_BS)
    e = model.encode(batch.tokens_BS, rotation, mask)
    h = noise(NOISE, batch.sample_ids_B, *e.shape[1:]) * model.config.embedding_std
    for loop in range(5):
        state, _ = model.core.step(model.core.start(h, e), LoopInputs(e, rotation, mask, loop))
        mapped = state.h_BSD
        h = mapped.detach() if loop < 2 else (1 - damping) * h + damping * mapped
    nll, _ = model._read(h, LoopInputs(e, rotation, mask), batch.targets_BS)
    nll.mean().backward()
    if damping == 1:
        assert torch.equal(output.nll_XBS[0], nll)
    assert relative_error(output.nll_XBS[0], nll) < 1e-6
    for parameter, gradient in gradients(model).items():
        assert relative_error(result[parameter], gradient) < 1e-6, parameter


def test_damping_changes_loops_with_gradients_only() -> None:
    model = looped()
    batch = random_batch(model.config)
    exact = model(batch, 5, 2, noise_seed=NOISE)
    damped = model(batch, 5, 2, noise_seed=NOISE, damping=0.3, trace=True)
    plain = model(batch, 5, 2, noise_seed=NOISE, trace=True)
    assert relative_error(damped.nll_XBS, exact.nll_XBS) > 1e-3
    assert torch.equal(damped.trace.state_norm_T[:3], plain.trace.state_norm_T[:3])
    with torch.no_grad():
        assert torch.equal(model(batch, 5, 2, noise_seed=NOISE, damping=0.3).nll_XBS, exact.nll_XBS)
