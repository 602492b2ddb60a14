import pytest

from mythos.callbacks.stragglers import stragglers
from mythos.config.base import ConfigError
from mythos.config.load import load


@pytest.mark.parametrize(
    ("seconds", "slow"),
    [
        ([1.0, 1.0, 1.0, 1.0], set()),
        ([1.0, 1.0, 1.49, 1.0], set()),
        ([1.0, 1.0, 1.51, 1.0], {2}),
        ([1.0, 3.0], {1}),
        ([4.0, 1.0, 1.0, 5.0, 1.0], {0, 3}),
        ([0.001, 0.009], set()),
        ([9.0], set()),
    ],
)
def test_a_straggler_is_far_from_the_median(seconds: list[float], slow: set[int]) -> None:
    assert stragglers(seconds, 1.5) == slow
    assert stragglers(seconds, None) == set()


def test_a_limit_that_every_other_rank_exceeds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run: straggler_ratio is 1, which every other rank exceeds"):
        load(["run.straggler_ratio=1"])
