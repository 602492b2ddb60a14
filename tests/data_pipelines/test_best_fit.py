import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.packing.best_fit import BestFitWriter, fit
from mythos.config.base import ConfigError
from mythos.data.manifest import Manifest, write_manifest
from mythos.data.windows import Windows
from mythos.types import IGNORED

SEQ_LEN = 12


@given(lengths=st.lists(st.integers(1, 20), max_size=60))
def test_every_item_is_in_one_bin_and_no_bin_overflows(lengths: list[int]) -> None:
    bins = fit(lengths, 20)
    assert sorted(item for members in bins for item in members) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in members) <= 20 for members in bins)
    # Best-fit decreasing needs at most 11/9 of the optimum and one bin (Johnson 1973).
    assert len(bins) <= 11 / 9 * -(-sum(lengths) // 20) + 4 + sum(length > 10 for length in lengths)
    assert bins == sorted(bins)


def test_the_fullest_bin_with_room_is_chosen() -> None:
    # 7 and 6 open bins with room for 3 and 4; the 3 goes where it fits exactly, not where most room is.
    assert fit([6, 7, 3, 4], 10) == [[0, 3], [1, 2]]


def test_many_random_documents_waste_little() -> None:
    generator = random.Random(0)
    lengths = [min(2048, int(generator.lognormvariate(6, 1)) + 1) for _ in range(5000)]
    bins = fit(lengths, 2048)
    assert sum(lengths) / (len(bins) * 2048) > 0.99


def write(directory: Path, documents: list[list[int]], shard_num_tokens: int = 10**6) -> BestFitWriter:
    directory.mkdir()
    writer = BestFitWriter(directory, "train", "uint16", 0, SEQ_LEN, shard_num_tokens, keep_placements=True)
    for document in documents:
        writer.add(document, len(document))
    manifest = Manifest(
        dtype="uint16",
        vocab_size=2**16,
        separator_id=0,
        tokenizer_sha256="none",
        inputs_sha256="none",
        splits={"train": writer.finish()},
    )
    write_manifest(directory, manifest)
    return writer


@pytest.mark.parametrize("shard_num_tokens", [30, 10**6])
def test_every_token_is_a_target_once_and_short_documents_stay_whole(tmp_path: Path, shard_num_tokens: int) -> None:
    generator = random.Random(1)
    number = iter(range(1, 10**5))
    documents = [[next(number) for _ in range(generator.choice([0, 1, 3, 5, 8, 11, 12, 30]))] for _ in range(80)]
    writer = write(tmp_path / "packed", documents, shard_num_tokens)
    windows = Windows(tmp_path / "packed", "train", SEQ_LEN, keep_partial=False)
    arrays = windows.read(np.arange(len(windows)))
    targets = arrays.targets_BS[arrays.targets_BS != IGNORED]
    # Every token of text is a target once, and so is the separator after every document.
    assert sorted(targets[targets > 0].tolist()) == list(range(1, next(number)))
    assert (targets == 0).sum() == len(documents)
    for index, document in enumerate(documents):
        if 0 < len(document) < SEQ_LEN:
            window, start = writer.placements[index]
            span = slice(start, start + len(document) + 1)
            assert arrays.tokens_BS[window, span].tolist() == [0, *document]
            assert arrays.targets_BS[window, span].tolist() == [*document, 0]
            assert arrays.positions_BS[window, span].tolist() == list(range(len(document) + 1))
            assert len(set(arrays.document_ids_BS[window, span].tolist())) == 1
    statistics = writer.statistics()
    assert statistics is not None
    assert statistics.num_documents == len(documents)
    assert statistics.num_cropped_documents == sum(len(document) >= SEQ_LEN for document in documents)
    assert statistics.num_windows == len(windows)
    num_inputs = sum(len(d) + max(1, -(-len(d) // (SEQ_LEN - 1))) for d in documents)
    assert statistics.num_padding_tokens == len(windows) * SEQ_LEN - num_inputs
    assert statistics.utilisation == pytest.approx(num_inputs / (len(windows) * SEQ_LEN))


def test_a_cropped_document_is_predicted_across_the_cut_but_not_after_a_new_separator(tmp_path: Path) -> None:
    write(tmp_path / "packed", [list(range(1, 16))])
    arrays = Windows(tmp_path / "packed", "train", SEQ_LEN, keep_partial=False).read(np.arange(2))
    assert arrays.tokens_BS[0].tolist() == [0, *range(1, 12)]
    assert arrays.targets_BS[0].tolist() == list(range(1, 13))
    assert arrays.tokens_BS[1, :5].tolist() == [0, 12, 13, 14, 15]
    assert arrays.targets_BS[1].tolist() == [IGNORED, 13, 14, 15, 0] + [IGNORED] * 7


def test_targets_are_counted_without_reading(tmp_path: Path) -> None:
    generator = random.Random(2)
    write(tmp_path / "packed", [[5] * generator.randrange(20) for _ in range(60)], shard_num_tokens=100)
    windows = Windows(tmp_path / "packed", "train", SEQ_LEN, keep_partial=False)
    for window_B in (np.arange(len(windows)), np.array([3]), np.array([4, 4, 1])):
        assert windows.num_targets(window_B) == int((windows.read(window_B).targets_BS != IGNORED).sum())


def test_another_length_than_the_packed_one_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "packed", [[1, 2, 3]])
    with pytest.raises(ConfigError, match=r"data\.seq_len is 16, .* windows of 12; set data\.seq_len=12, or pack"):
        Windows(tmp_path / "packed", "train", 16, keep_partial=False)
