"""What travels between ranks arrives whole, in order, and with the right gradients."""

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mythos.parallel.exchange import AsyncAllToAll, add_partial_sums, exchange_rows, repeat_for_others

SHAPE = (5, 3)


def tokens_of(rank: int, salt: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(10 * salt + rank), dtype=torch.float64)


def in_ranks(work, size: int, folder: Path) -> list:
    """What ``work(rank, size)`` returns in each of ``size`` processes joined by gloo."""
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_one_rank, args=(work, rank, size, folder)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=120)
    assert [process.exitcode for process in ranks] == [0] * size
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def _one_rank(work, rank: int, size: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    torch.save(work(rank, size), folder / f"{rank}.pt")
    dist.destroy_process_group()


def visit_all(rank: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every rank multiplies everybody's tokens by its own factor; each token gets the sum over ranks."""
    group = dist.group.WORLD
    x_ND = tokens_of(rank).requires_grad_()
    factor = torch.tensor(rank + 1.0, dtype=torch.float64, requires_grad=True)
    tokens = AsyncAllToAll(repeat_for_others(x_ND, group), group)
    returned = AsyncAllToAll(tokens.result() * factor, group)
    y_ND = add_partial_sums(x_ND * factor, returned.result())
    y_ND.backward(tokens_of(rank, salt=1))
    return y_ND.detach(), x_ND.grad, factor.grad


@pytest.mark.parametrize("size", [2, 3])
def test_tokens_visit_all_ranks_and_come_back_added_up(size: int, tmp_path: Path) -> None:
    total = sum(range(1, size + 1))
    scores = sum((tokens_of(rank) * tokens_of(rank, salt=1)).sum() for rank in range(size))
    for rank, (y_ND, grad_ND, grad_factor) in enumerate(in_ranks(visit_all, size, tmp_path)):
        torch.testing.assert_close(y_ND, total * tokens_of(rank), rtol=1e-14, atol=0)
        torch.testing.assert_close(grad_ND, total * tokens_of(rank, salt=1), rtol=1e-14, atol=0)
        torch.testing.assert_close(grad_factor, scores, rtol=1e-13, atol=0)


def send_rows(rank: int, size: int) -> tuple[Tensor, Tensor]:
    """Rank r sends r + s rows to rank s, of its own number."""
    sent = [rank + other for other in range(size)]
    row_MD = torch.full((sum(sent), 2), float(rank), requires_grad=True)
    result_MD = exchange_rows(row_MD, sent, sent, dist.group.WORLD)
    result_MD.backward(torch.full_like(result_MD, 10.0 + rank))
    return result_MD.detach()[:, 0], row_MD.grad[:, 0]


def test_rows_go_to_the_ranks_that_they_are_for(tmp_path: Path) -> None:
    for rank, (result_M, grad_M) in enumerate(in_ranks(send_rows, 3, tmp_path)):
        from_each = torch.arange(3.0).repeat_interleave(torch.tensor([rank + other for other in range(3)]))
        assert torch.equal(result_M, from_each)
        assert torch.equal(grad_M, 10 + from_each)
