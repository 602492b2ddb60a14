import pytest

from mythos.config.base import ConfigError, decode, encode
from mythos.config.data import DataConfig, whole_weights

BASE = {"seq_len": 8, "batch_size": 4, "micro_batch_size": 2}
TWO = {"sources": [{"dir": "a", "weight": 0.7}, {"dir": "b", "weight": 0.3}]}


def test_one_directory_is_a_mixture_of_one():
    config = decode(DataConfig, BASE | {"dir": "packed"})
    assert config.directories == ("packed",)
    assert config.stage_weights == ((0, (1,)),)


def test_a_mixture_survives_json():
    config = decode(DataConfig, BASE | TWO | {"stages": [{"from_sample": 20, "weights": [1, 0]}], "skipped": [[3, 9]]})
    assert config.directories == ("a", "b")
    assert config.stage_weights == ((0, (7, 3)), (20, (1, 0)))
    assert decode(DataConfig, encode(config)) == config


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((0.7, 0.2, 0.1), (7, 2, 1)), ((3, 6), (1, 2)), ((0.0, 2.5), (0, 1)), ((0.333, 0.667), (333, 667))],
)
def test_weights_are_read_as_they_print(weights, expected):
    assert whole_weights(weights, "weights") == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "dir names one dataset and sources several, but neither was given"),
        (TWO | {"dir": "packed"}, "but both 'packed' and sources were given; give one of the two"),
        ({"sources": [{"dir": "a", "weight": 0}]}, r"sources.weight is 0.0, which sums to zero"),
        ({"sources": [{"dir": "a", "weight": -1}]}, "sources.0.weight"),
        (
            {"sources": [{"dir": "a", "weight": 1.23456789}, {"dir": "b", "weight": 1}]},
            "only 223456789 samples can meet exactly, but at most 100000",
        ),
        (TWO | {"stages": [{"from_sample": 20, "weights": [1]}]}, "has 1 weights from sample 20 on, but there are 2"),
        (TWO | {"stages": [{"from_sample": 20, "weights": [0, 0]}]}, r"stages.weights is 0.0, 0.0, which sums to zero"),
        (TWO | {"stages": [{"from_sample": 27, "weights": [1, 1]}]}, "every 10 samples; .* for instance at 30"),
        (
            TWO | {"stages": [{"from_sample": 20, "weights": [1, 1]}, {"from_sample": 20, "weights": [1, 0]}]},
            "from_sample is 20 after a stage that begins at 20",
        ),
        ({"dir": "a", "skipped": [[5, 5]]}, r"skipped has the range \[5, 5\), which is empty"),
    ],
)
def test_a_mistake_gives_one_sentence(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        decode(DataConfig, BASE | changes)
    assert "\n" not in str(caught.value)
