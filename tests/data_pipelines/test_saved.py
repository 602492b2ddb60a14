"""Folders of ``datasets.save_to_disk``."""

import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from data_pipelines.packing.source import TextSource, read_text
from data_pipelines.skips import Skips
from mythos.config.base import ConfigError

ROWS = Dataset.from_dict({"text": [f"row {n}" for n in range(2500)], "n": list(range(2500))})


def texts(path: Path, skips: Skips | None = None, column: str = "text") -> list[str]:
    return [document.text for document in read_text(TextSource(path, column), skips)]


def test_rows_are_read_in_the_order_in_which_they_were_saved(tmp_path: Path) -> None:
    shuffled = ROWS.shuffle(seed=1)
    shuffled.save_to_disk(tmp_path / "set", num_shards=2)
    assert texts(tmp_path / "set") == list(shuffled["text"])
    document = next(read_text(tmp_path / "set"))
    assert (document.id, document.source) == ("data-00000-of-00002.arrow#0", "set")


def test_the_training_split_is_read_and_others_are_named(tmp_path: Path) -> None:
    DatasetDict(train=ROWS.select(range(3)), test=ROWS.select([4])).save_to_disk(tmp_path / "both")
    skips = Skips()
    assert texts(tmp_path / "both", skips) == ["row 0", "row 1", "row 2"]
    assert skips.sentences() == ["1 skipped, a split other than train: test."]
    assert texts(tmp_path / "both" / "test") == ["row 4"]
    DatasetDict(test=ROWS.select([4])).save_to_disk(tmp_path / "one")
    assert texts(tmp_path / "one") == ["row 4"]
    DatasetDict(a=ROWS.select([4]), b=ROWS.select([4])).save_to_disk(tmp_path / "other")
    with pytest.raises(ConfigError, match="other has the splits a, b, but no train; name the folder of one"):
        texts(tmp_path / "other")


def test_a_column_without_text_is_refused(tmp_path: Path) -> None:
    ROWS.save_to_disk(tmp_path / "set")
    with pytest.raises(ConfigError, match=r"\.arrow: row 1 has no column 'body'; its columns are text, n; name"):
        texts(tmp_path / "set", column="body")
    with pytest.raises(ConfigError, match=r"\.arrow: row 1 has a number in the column 'n', as 999 other rows"):
        texts(tmp_path / "set", column="n")


@pytest.mark.parametrize("num_bytes", [-8, -100, -20_000, 10])
def test_a_file_cut_short_is_refused(num_bytes: int, tmp_path: Path) -> None:
    ROWS.save_to_disk(tmp_path / "set")
    (path,) = (tmp_path / "set").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(ConfigError, match=r"\.arrow is damaged after row 0 \(.*\); write it again"):
        texts(tmp_path / "set")


@pytest.mark.parametrize("content", ["{", "[]", '{"_data_files": [{"filename": "../a"}]}'])
def test_a_damaged_state_is_refused(content: str, tmp_path: Path) -> None:
    ROWS.select([0]).save_to_disk(tmp_path / "set")
    (tmp_path / "set" / "state.json").write_text(content)
    with pytest.raises(ConfigError, match=r"state\.json (is damaged|is not a JSON object|lists '\.\./a', which)"):
        texts(tmp_path / "set")


def test_a_state_of_something_else_does_not_hide_text(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"step": 1}))
    (tmp_path / "a.txt").write_text("one")
    assert texts(tmp_path) == ["one"]
