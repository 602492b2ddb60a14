import torch

from mythos.loop.state import noise


def test_noise_depends_on_seed_and_sample_and_not_on_the_batch() -> None:
    ids = torch.tensor([5, 2**33 + 5, 6])
    whole = noise(1, ids, 7, 6)
    for row, sample in enumerate(ids):
        assert torch.equal(whole[row], noise(1, sample[None], 7, 6)[0])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0], noise(2, ids, 7, 6)[0])


def test_noise_is_standard_normal_and_uncorrelated() -> None:
    values = noise(0, torch.arange(64), 64, 64)
    assert values.isfinite().all()
    assert abs(values.mean().item()) < 0.01
    assert abs(values.var().item() - 1) < 0.01
    assert abs((values**4).mean().item() - 3) < 0.05
    flat = values.view(64, -1)
    correlation = torch.corrcoef(flat) - torch.eye(64)
    assert correlation.abs().max() < 0.08
    neighbours = (flat[:, 1:] * flat[:, :-1]).mean()
    assert abs(neighbours.item()) < 0.01
