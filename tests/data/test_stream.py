import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config.base import ConfigError
from mythos.data.shards import open_split
from mythos.data.stream import shuffled
from mythos.data.windows import Windows
from mythos.types import IGNORED

MakeDataset = Callable[..., Path]
LENGTHS = [3, 40, 0, 1, 7, 55, 12, 2, 9, 31]


def naive_windows(directory: Path, split: str, seq_len: int, keep_partial: bool) -> list[list[tuple[int, ...]]]:
    """Reference implementation: (token, target, position, document id) for each token of each window."""
    windows = []
    for shard in open_split(directory, split):
        tokens, starts = shard.tokens_N, shard.document_starts
        for begin in range(0, len(tokens) - 1, seq_len):
            rows, position, document_id = [], -1, 0
            for offset in range(begin, begin + seq_len):
                if offset in starts and offset != begin:
                    position, document_id = -1, document_id + 1
                position += 1
                token = int(tokens[offset]) if offset < len(tokens) else 0
                target = int(tokens[offset + 1]) if offset + 1 < len(tokens) else IGNORED
                rows.append((token, target, position, document_id))
            if keep_partial or rows[-1][1] != IGNORED:
                windows.append(rows)
    return windows


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("shard_num_tokens", [20, 50, 1000])
@pytest.mark.parametrize("keep_partial", [False, True])
@pytest.mark.parametrize("seq_len", [1, 7, 13])
def test_windows_equal_the_reference_implementation(
    make_dataset: MakeDataset, seq_len: int, keep_partial: bool, shard_num_tokens: int, dtype: str
) -> None:
    directory = make_dataset(LENGTHS, shard_num_tokens=shard_num_tokens, dtype=dtype)
    windows = Windows(directory, "train", seq_len, keep_partial)
    naive = np.array(naive_windows(directory, "train", seq_len, keep_partial))
    assert len(windows) == len(naive)
    order = np.random.default_rng(0).permutation(len(windows))
    assert np.array_equal(np.stack(windows.read(order), axis=-1), naive[order])


def test_every_token_except_the_first_of_a_shard_is_predicted_once(make_dataset: MakeDataset) -> None:
    directory = make_dataset(LENGTHS, shard_num_tokens=50)
    windows = Windows(directory, "train", 7, keep_partial=True)
    targets = windows.read(np.arange(len(windows))).targets_BS
    shards = open_split(directory, "train")
    assert len(shards) == 5
    assert [shard.continues for shard in shards].count(True) == 1
    expected = np.concatenate([shard.tokens_N[1:] for shard in shards])
    assert np.array_equal(targets[targets != IGNORED], expected)
    assert [int(shard.tokens_N[0]) for shard in shards if not shard.continues] == [0] * 4


def test_full_windows_have_no_ignored_targets(make_dataset: MakeDataset) -> None:
    windows = Windows(make_dataset(LENGTHS), "train", 7, keep_partial=False)
    assert len(windows) == (sum(LENGTHS) + len(LENGTHS) - 1) // 7
    assert (windows.read(np.arange(len(windows))).targets_BS != IGNORED).all()


def test_every_epoch_is_a_new_order_of_all_windows() -> None:
    windows = shuffled(np.arange(3 * 101), 101, seed=4).reshape(3, 101)
    for epoch in range(3):
        assert np.array_equal(np.sort(windows[epoch]), np.arange(101))
    assert (windows[0] == windows[1]).sum() < 10
    assert (windows[1] == windows[2]).sum() < 10


def test_order_is_a_function_of_the_index() -> None:
    whole = shuffled(np.arange(1000), 37, seed=9)
    for index in (0, 36, 37, 500, 999):
        assert shuffled(np.array([index]), 37, seed=9)[0] == whole[index]


def test_windows_are_pickled_without_the_data(make_dataset: MakeDataset) -> None:
    windows = Windows(make_dataset([5000]), "train", 16, keep_partial=False)
    sent = pickle.dumps(windows)
    assert len(sent) < 1000
    index = np.arange(4)
    assert np.array_equal(pickle.loads(sent).read(index).tokens_BS, windows.read(index).tokens_BS)


def test_text_shorter_than_a_window_is_refused(make_dataset: MakeDataset) -> None:
    with pytest.raises(ConfigError, match=r"data\.seq_len is 64, but no shard .* more than 20 tokens"):
        Windows(make_dataset([20]), "train", 64, keep_partial=False)
