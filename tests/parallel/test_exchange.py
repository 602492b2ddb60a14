"""Exchanges between ranks return complete, ordered tensors and the right gradients."""

import multiprocessing
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mythos.parallel.exchange import AsyncAllToAll, add_partial_sums, exchange_rows, repeat_for_others

SHAPE = (5, 3)


def tokens_of(rank: int, salt: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(10 * salt + rank), dtype=torch.float64)


class Exchanged(NamedTuple):
    """What one of three ranks computed: a product among two ranks (None on the third) and among three, and rows."""

    products: dict[int, tuple[Tensor, Tensor, Tensor] | None]
    rows: tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Exchanged]:
    """Three processes joined by gloo; by rank, what each computed."""
    folder, context = tmp_path_factory.mktemp("ranks"), multiprocessing.get_context("spawn")
    processes = [context.Process(target=run_rank, args=(rank, folder), daemon=True) for rank in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    return [Exchanged(*torch.load(folder / f"{rank}.pt")) for rank in range(3)]


def run_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    two = dist.new_group([0, 1])
    among_two = multiply_on_all_ranks(rank, two) if rank < 2 else None
    products = {2: among_two, 3: multiply_on_all_ranks(rank, dist.group.WORLD)}
    torch.save((products, send_rows(rank)), folder / f"{rank}.pt")
    dist.destroy_process_group()


def multiply_on_all_ranks(rank: int, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Multiply the tokens of all ranks by this rank's factor; each token receives the sum over ranks."""
    x_ND = tokens_of(rank).requires_grad_()
    factor = torch.tensor(rank + 1.0, dtype=torch.float64, requires_grad=True)
    tokens = AsyncAllToAll(repeat_for_others(x_ND, group), group)
    returned = AsyncAllToAll(tokens.result() * factor, group)
    y_ND = add_partial_sums(x_ND * factor, returned.result())
    y_ND.backward(tokens_of(rank, salt=1))
    return y_ND.detach(), x_ND.grad, factor.grad


@pytest.mark.parametrize("size", [2, 3])
def test_tokens_of_all_ranks_reach_every_rank_and_results_are_summed(ranks, size: int) -> None:
    total = sum(range(1, size + 1))
    scores = sum((tokens_of(rank) * tokens_of(rank, salt=1)).sum() for rank in range(size))
    for rank in range(size):
        y_ND, grad_ND, grad_factor = ranks[rank].products[size]
        torch.testing.assert_close(y_ND, total * tokens_of(rank), rtol=1e-14, atol=0)
        torch.testing.assert_close(grad_ND, total * tokens_of(rank, salt=1), rtol=1e-14, atol=0)
        torch.testing.assert_close(grad_factor, scores, rtol=1e-13, atol=0)


def send_rows(rank: int) -> tuple[Tensor, Tensor]:
    """Send r + s rows, filled with r, from rank r to rank s."""
    sent = [rank + other for other in range(3)]
    row_MD = torch.full((sum(sent), 2), float(rank), requires_grad=True)
    result_MD = exchange_rows(row_MD, sent, sent, dist.group.WORLD)
    result_MD.backward(torch.full_like(result_MD, 10.0 + rank))
    return result_MD.detach()[:, 0], row_MD.grad[:, 0]


def test_rows_reach_the_ranks_that_they_are_sent_to(ranks) -> None:
    for rank, (result_M, grad_M) in enumerate(one.rows for one in ranks):
        from_each = torch.arange(3.0).repeat_interleave(torch.tensor([rank + other for other in range(3)]))
        assert torch.equal(result_M, from_each)
        assert torch.equal(grad_M, 10 + from_each)
