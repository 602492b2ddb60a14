import torch
from helpers import relative_error

from mythos.loop.state import Noise, noise

SAMPLES = torch.tensor([1, 2**40 + 5, 77])


def test_noise_is_normal_and_differs_by_sample_and_seed() -> None:
    values_BSD = noise(3, SAMPLES, 64, 128)
    assert values_BSD.mean().abs() < 0.01
    assert abs(values_BSD.std() - 1) < 0.01
    others = [*values_BSD, noise(4, SAMPLES, 64, 128)[0]]
    similar = torch.corrcoef(torch.stack([other.flatten() for other in others])) - torch.eye(4)
    assert similar.abs().max() < 0.05


def test_every_seed_of_63_bits_gives_noise() -> None:
    """The low 32 bits of the seed count, as in the sums of earlier versions, which overflowed from 2^33 on."""
    assert torch.equal(noise(2**32 + 3, SAMPLES, 4, 8), noise(3, SAMPLES, 4, 8))
    assert noise(2**63 - 1, SAMPLES, 4, 8).isfinite().all()


def test_compiled_noise_is_the_same_noise() -> None:
    part = Noise()
    part.compile(dynamic=False)
    assert relative_error(part(3, SAMPLES, 7, 16), noise(3, SAMPLES, 7, 16)) < 1e-6
