"""How many operations a step queues, and how many bytes they write: what a clock would say, without a clock.

Each operation is at least one kernel where nothing is compiled, and what it writes goes through memory. The numbers
are those of the code as it stands; a change that needs more has to raise them, and to say why it is worth it.
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
PASSES = {
    "debug-dense": {"graded": (462, 894), "not graded": (171, 332)},
    "debug": {"graded": (667, 1194), "not graded": (271, 422)},
}
"""Bounds on one pass over two core layers, bf16 autocast: operations, and bytes written per value of the state."""
OUTSIDE = {"debug-dense": (605, 1850), "debug": (610, 1820)}
"""The same for a whole micro-batch without its passes."""
OPTIMIZER = {"debug-dense": 120, "debug": 150}
"""Operations of one step of MuonAdamW, which batches matrices of equal shape; the first model has 28 of them."""


class Operations(TorchDispatchMode):
    """Counts operations that are no views, and the bytes of their results."""

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
    """Operations of forward and backward, and bytes that they write per value of the state."""
    step = small_step(*words)
    step.set_depth(num_loops, num_grad_loops)
    with Operations() as operations:
        step.module.training_step(step.batches[0], 0)["loss"].backward()
    return operations.num, operations.num_bytes / (NUM_TOKENS * DIM)


def one_loop(num_loops: int, num_grad_loops: int, is_graded: bool, *words: str) -> tuple[int, float]:
    """What one pass more, with or without gradients, adds to these."""
    more = micro_batch(num_loops + 1, num_grad_loops + is_graded, *words)
    fewer = micro_batch(num_loops, num_grad_loops, *words)
    return more[0] - fewer[0], more[1] - fewer[1]


@pytest.mark.parametrize("model", PASSES)
@pytest.mark.parametrize("kind", ["graded", "not graded"])
def test_a_pass_needs_no_more_than_its_bound(model: str, kind: str) -> None:
    num, num_bytes = one_loop(3, 2, kind == "graded", f"model={model}")
    most, most_bytes = PASSES[model][kind]
    assert 0 < num <= most
    assert 0 < num_bytes <= most_bytes


@pytest.mark.parametrize("model", OUTSIDE)
def test_what_runs_once_needs_no_more_than_its_bound(model: str) -> None:
    of_loop = one_loop(3, 3, True, f"model={model}")
    num, num_bytes = micro_batch(3, 3, f"model={model}")
    most, most_bytes = OUTSIDE[model]
    assert 0 < num - 3 * of_loop[0] <= most
    assert 0 < num_bytes - 3 * of_loop[1] <= most_bytes


@pytest.mark.parametrize("is_graded", [True, False])
def test_a_late_pass_costs_what_an_early_one_does(is_graded: bool) -> None:
    assert one_loop(6, 3, is_graded, "model=debug") == one_loop(3, 2, is_graded, "model=debug")


def test_more_experts_are_no_more_operations() -> None:
    four, sixteen = (one_loop(2, 2, True, "model=debug", f"model.core_ffn.num_experts={num}")[0] for num in (4, 16))
    assert four == sixteen


def test_the_count_sees_what_the_grouped_path_saves() -> None:
    grouped, naive = (
        one_loop(2, 2, True, "model=debug", f"model.core_ffn.dispatch={path}") for path in ("grouped", "naive")
    )
    assert naive[0] > 1.2 * grouped[0]


@pytest.mark.parametrize("model", OPTIMIZER)
def test_the_optimizer_needs_no_more_than_its_bound(model: str) -> None:
    step = small_step(f"model={model}")
    step()
    step.module.training_step(step.batches[0], 0)["loss"].backward()
    with Operations() as operations:
        step.optimizer.step()
    assert 0 < operations.num <= OPTIMIZER[model]
