import torch

from mythos.moe.balance import bucket_loops, load_violation, updated_bias


def test_bias_changes_against_the_load_and_stays_centred() -> None:
    counts = torch.tensor([[[10, 0, 2, 0]]])
    updated = updated_bias(torch.zeros(1, 1, 4), counts, rate=1e-3)
    torch.testing.assert_close(updated[0, 0], torch.tensor([-1.5e-3, 0.5e-3, 0.5e-3, 0.5e-3]))
    assert updated.dtype == torch.float32


def test_an_update_of_one_thousandth_changes_a_large_bias() -> None:
    bias = torch.full((1, 1, 2), 8.0)
    updated = updated_bias(bias, torch.tensor([[[1, 3]]]), rate=1e-3)
    assert updated[0, 0].tolist() == [torch.tensor(8.001).item(), torch.tensor(7.999).item()]


def test_unused_rows_keep_their_values() -> None:
    counts_TLE = torch.tensor([[[4, 0]], [[0, 4]]])
    rows = bucket_loops(counts_TLE, max_loops=5)
    assert rows.shape == (1, 5, 2)
    bias = torch.arange(10.0).view(1, 5, 2)
    updated = updated_bias(bias, rows, rate=0.5)
    assert torch.equal(updated[0, 2:], bias[0, 2:])
    assert (updated[0, :2] != bias[0, :2]).all()


def test_copy_last_gives_unused_rows_the_update_of_the_last_loop() -> None:
    counts_TLE = torch.tensor([[[4, 0], [0, 4]], [[0, 4], [4, 0]]])
    rows = bucket_loops(counts_TLE, max_loops=5)
    bias = torch.arange(20.0).view(2, 5, 2)
    step = updated_bias(bias, rows, rate=0.5, copy_last=True) - bias
    assert step[0].tolist() == [[-0.5, 0.5], *4 * [[0.5, -0.5]]]
    assert step[1].tolist() == [[0.5, -0.5], *4 * [[-0.5, 0.5]]]
    assert torch.equal(updated_bias(bias, torch.zeros(2, 5, 2), rate=0.5, copy_last=True), bias)


def test_loops_after_the_end_of_the_table_share_its_last_row() -> None:
    counts_TLE = torch.tensor([[[1, 0]], [[2, 0]], [[0, 4]], [[8, 8]]])
    assert bucket_loops(counts_TLE, max_loops=2)[0].tolist() == [[1, 0], [10, 12]]


def test_balancing_a_skewed_router_evens_the_load() -> None:
    generator = torch.Generator().manual_seed(0)
    skew = torch.tensor([1.0, 0.5, 0.0, -0.5])
    bias = torch.zeros(1, 1, 4)
    violations = []
    for _ in range(400):
        score = (torch.randn(256, 4, generator=generator) + skew).sigmoid()
        expert = (score + bias[0, 0]).argmax(-1)
        counts = torch.bincount(expert, minlength=4).view(1, 1, 4)
        violations.append(load_violation(counts).item())
        bias = updated_bias(bias, counts, rate=5e-3)
    assert sum(violations[:20]) / 20 > 0.5
    assert sum(violations[-100:]) / 100 < 0.2
