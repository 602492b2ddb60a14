import pytest
import torch

from mythos.moe.balance import QuantileRule, SignRule, bucket_loops, load_violation, updated_bias
from mythos.moe.margins import count_margins


def signed(bias_LRE: torch.Tensor, counts_LRE: torch.Tensor, rate: float, copy_last: bool = False) -> torch.Tensor:
    move_LRE = SignRule(rate).move(counts_LRE, torch.zeros(()))
    return updated_bias(bias_LRE, move_LRE, counts_LRE, copy_last)


def test_bias_changes_against_the_load_and_stays_centred() -> None:
    counts = torch.tensor([[[10, 0, 2, 0]]])
    updated = signed(torch.zeros(1, 1, 4), counts, rate=1e-3)
    torch.testing.assert_close(updated[0, 0], torch.tensor([-1.5e-3, 0.5e-3, 0.5e-3, 0.5e-3]))
    assert updated.dtype == torch.float32


def test_an_update_of_one_thousandth_changes_a_large_bias() -> None:
    bias = torch.full((1, 1, 2), 8.0)
    updated = signed(bias, torch.tensor([[[1, 3]]]), rate=1e-3)
    assert updated[0, 0].tolist() == [torch.tensor(8.001).item(), torch.tensor(7.999).item()]


def test_unused_rows_keep_their_values() -> None:
    counts_TLE = torch.tensor([[[4, 0]], [[0, 4]]])
    rows = bucket_loops(counts_TLE, max_loops=5)
    assert rows.shape == (1, 5, 2)
    bias = torch.arange(10.0).view(1, 5, 2)
    updated = signed(bias, rows, rate=0.5)
    assert torch.equal(updated[0, 2:], bias[0, 2:])
    assert (updated[0, :2] != bias[0, :2]).all()


def test_copy_last_gives_unused_rows_the_update_of_the_last_loop() -> None:
    counts_TLE = torch.tensor([[[4, 0], [0, 4]], [[0, 4], [4, 0]]])
    rows = bucket_loops(counts_TLE, max_loops=5)
    bias = torch.arange(20.0).view(2, 5, 2)
    step = signed(bias, rows, rate=0.5, copy_last=True) - bias
    assert step[0].tolist() == [[-0.5, 0.5], *4 * [[0.5, -0.5]]]
    assert step[1].tolist() == [[0.5, -0.5], *4 * [[-0.5, 0.5]]]
    assert torch.equal(signed(bias, torch.zeros(2, 5, 2), rate=0.5, copy_last=True), bias)


def test_loops_after_the_end_of_the_table_share_its_last_row() -> None:
    counts_TLE = torch.tensor([[[1, 0]], [[2, 0]], [[0, 4]], [[8, 8]]])
    assert bucket_loops(counts_TLE, max_loops=2)[0].tolist() == [[1, 0], [10, 12]]


@pytest.mark.parametrize("rule", [SignRule(5e-3), QuantileRule(share=0.25), QuantileRule(share=0.25, fraction=0.5)])
def test_balancing_a_skewed_router_evens_the_load(rule) -> None:
    generator = torch.Generator().manual_seed(0)
    skew = torch.tensor([1.0, 0.5, 0.0, -0.5])
    bias = torch.zeros(1, 1, 4)
    violations = []
    for _ in range(400):
        score = (torch.randn(256, 4, generator=generator) + skew).sigmoid()
        selection = score + bias[0, 0]
        counts = torch.bincount(selection.argmax(-1), minlength=4).view(1, 1, 4)
        violations.append(load_violation(counts).item())
        margins = count_margins(selection[None], num_active=1)[None, None]
        bias = updated_bias(bias, rule.move(counts, margins), counts)
        assert abs(bias.mean().item()) < 1e-6
    assert violations[0] > 0.5
    assert sum(violations[-100:]) / 100 < 0.2
    if isinstance(rule, QuantileRule):
        assert sum(violations[20:40]) / 20 < 0.25  # it needs no hundreds of steps


def test_a_collapsed_router_is_balanced_by_five_moves_of_the_quantile_rule() -> None:
    """All tokens prefer the same two of eight experts by far more than their scores vary."""
    generator = torch.Generator().manual_seed(1)
    score_SE = (0.05 * torch.randn(512, 8, generator=generator) + torch.linspace(-3, 3, 8)).sigmoid()
    bias = torch.zeros(1, 1, 8)
    violations = []
    for _ in range(6):
        counts = torch.bincount((score_SE + bias[0, 0]).topk(2).indices.flatten(), minlength=8).view(1, 1, 8)
        violations.append(load_violation(counts).item())
        margins = count_margins((score_SE + bias[0, 0])[None], num_active=2)[None, None]
        bias = updated_bias(bias, QuantileRule(2 / 8).move(counts, margins), counts)
    assert violations[0] == 3
    assert violations[-1] < 0.1
