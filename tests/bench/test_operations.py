"""Bounds on the operations that a step queues and the bytes that they write: a regression test of speed without timing.

Without compilation, each operation launches at least one kernel, and its results are written to memory. The bounds are
the counts of the current code; a change that needs more operations has to raise them and to justify it.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mythos.bench.step import Step, fixed
from tests.helpers import run_config

NUM_TOKENS, DIM = 128, 32
LOOP = {
    "debug-dense": {"with gradient": (462, 894), "without gradient": (171, 332)},
    "debug": {"with gradient": (667, 1194), "without gradient": (285, 422)},
}
"""Bounds on one loop over two core layers, bf16 autocast: operations, and bytes written per element of the state. A
router needs six operations for shares of scores that underflow, and one for margins that nobody counts."""
OUTSIDE = {"debug-dense": (605, 1850), "debug": (610, 1820)}
"""The same bounds for a whole micro-batch without its loops."""
OPTIMIZER = {"debug-dense": 120, "debug": 150}
"""Operations of one step of MuonAdamW, which batches matrices of equal shape; the first model has 28 of them."""


class Operations(TorchDispatchMode):
    """Counts operations other than views, and the bytes of their results."""

    def __init__(self) -> None:
        super().__init__()
        self.num, self.num_bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        is_view = bool(returns) and all(
            each.alias_info is not None and not each.alias_info.is_write for each in returns
        )
        if not is_view:
            self.num += 1
            self.num_bytes += sum(leaf.nbytes for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


def small_step(*words: str) -> Step:
    size = ("data.seq_len=64", "data.batch_size=2", "data.micro_batch_size=2", "parallel.precision=bf16")
    return Step(fixed(run_config("parallel.device=cpu", *size, *words)), torch.device("cpu"), mean_document=16)


def micro_batch(num_loops: int, num_grad_loops: int, *words: str) -> tuple[int, float]:
    """Operations of forward and backward, and bytes that they write per element of the state."""
    step = small_step(*words)
    step.set_depth(num_loops, num_grad_loops)
    with Operations() as operations:
        step.module.training_step(step.batches[0], 0)["loss"].backward()
    return operations.num, operations.num_bytes / (NUM_TOKENS * DIM)


def one_loop(num_loops: int, num_grad_loops: int, has_grad: bool, *words: str) -> tuple[int, float]:
    """Operations and bytes that one more loop, with or without gradient, adds to ``micro_batch``."""
    more = micro_batch(num_loops + 1, num_grad_loops + has_grad, *words)
    fewer = micro_batch(num_loops, num_grad_loops, *words)
    return more[0] - fewer[0], more[1] - fewer[1]


@pytest.mark.parametrize("model", LOOP)
@pytest.mark.parametrize("kind", ["with gradient", "without gradient"])
def test_a_loop_stays_within_its_bounds(model: str, kind: str) -> None:
    num, num_bytes = one_loop(3, 2, kind == "with gradient", f"model={model}")
    most, most_bytes = LOOP[model][kind]
    assert 0 < num <= most
    assert 0 < num_bytes <= most_bytes


@pytest.mark.parametrize("model", OUTSIDE)
def test_a_micro_batch_without_its_loops_stays_within_its_bounds(model: str) -> None:
    of_loop = one_loop(3, 3, True, f"model={model}")
    num, num_bytes = micro_batch(3, 3, f"model={model}")
    most, most_bytes = OUTSIDE[model]
    assert 0 < num - 3 * of_loop[0] <= most
    assert 0 < num_bytes - 3 * of_loop[1] <= most_bytes


@pytest.mark.parametrize("has_grad", [True, False])
def test_late_and_early_loops_cost_the_same(has_grad: bool) -> None:
    assert one_loop(6, 3, has_grad, "model=debug") == one_loop(3, 2, has_grad, "model=debug")


def test_more_experts_need_no_more_operations() -> None:
    four, sixteen = (one_loop(2, 2, True, "model=debug", f"model.core_ffn.num_experts={num}")[0] for num in (4, 16))
    assert four == sixteen


def test_the_grouped_path_needs_fewer_operations_than_the_naive_one() -> None:
    grouped, naive = (
        one_loop(2, 2, True, "model=debug", f"model.core_ffn.dispatch={path}") for path in ("grouped", "naive")
    )
    assert naive[0] > 1.2 * grouped[0]


@pytest.mark.parametrize("model", OPTIMIZER)
def test_the_optimizer_stays_within_its_bound(model: str) -> None:
    step = small_step(f"model={model}")
    step()
    step.module.training_step(step.batches[0], 0)["loss"].backward()
    with Operations() as operations:
        step.optimizer.step()
    assert 0 < operations.num <= OPTIMIZER[model]
