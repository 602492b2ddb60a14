import pytest
import torch

from mythos.callbacks import loop_record
from mythos.callbacks.loop_record import load_arrays
from mythos.config import records


def test_loads_are_percentages_of_the_mean_for_loops_that_ran() -> None:
    counts_TLE = torch.tensor([[[1, 3], [2, 2]], [[0, 4], [3, 1]], [[0, 0], [0, 0]]])
    arrays = load_arrays(counts_TLE)
    assert arrays[records.EXPERT_LOAD] == [[[50, 150], [0, 200]], [[100, 100], [150, 50]]]
    assert arrays[records.EXPERT_LOAD_LAYERS] == [0, 1]


def test_a_large_array_omits_some_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_record, "MAX_LOADS", 8)
    counts_TLE = torch.arange(1, 21).view(1, 5, 4)
    arrays = load_arrays(counts_TLE)
    assert arrays[records.EXPERT_LOAD_LAYERS] == [0, 3]
    expected = [[round(100 * count / row.float().mean().item()) for count in row.tolist()] for row in counts_TLE[0]]
    assert arrays[records.EXPERT_LOAD] == [[expected[0]], [expected[3]]]
