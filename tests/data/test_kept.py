from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.data.kept import keep_tokenizer, kept_data


@pytest.mark.parametrize("name", ["data.json", "tokenizer.json"])
def test_a_damaged_file_is_refused_until_it_is_written_again(packed: Path, tmp_path: Path, name: str) -> None:
    keep_tokenizer(tmp_path, [str(packed)], "abc")
    kept, content = kept_data(tmp_path, "abc"), (tmp_path / name).read_bytes()
    assert kept is not None
    (tmp_path / name).write_bytes(content[:-9])
    with pytest.raises(ConfigError, match=rf"{name}: (damaged|missing or altered)"):
        kept_data(tmp_path, "abc")
    keep_tokenizer(tmp_path, [str(packed)], "abc")
    assert (tmp_path / name).read_bytes() == content
    assert kept_data(tmp_path, "abc") == kept


def test_files_that_are_as_they_should_be_are_left_alone(packed: Path, tmp_path: Path) -> None:
    keep_tokenizer(tmp_path, [str(packed)], "abc")
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    keep_tokenizer(tmp_path, [str(packed)], "abc")
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before
