from pathlib import Path

import pytest

from data_pipelines.lock import locked
from mythos.config.base import ConfigError


def test_a_folder_is_locked_once_and_nothing_stays_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "out"):
        with pytest.raises(ConfigError, match=r"another run is at work in .*/out; wait for it or use a new folder"):
            locked(tmp_path / "out").__enter__()
        assert (tmp_path / "out" / ".lock").exists()
    assert list((tmp_path / "out").iterdir()) == []
    with locked(tmp_path / "out"):
        pass


def test_a_lock_that_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("left")
    with locked(tmp_path):
        pass


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match=r"\.lock is a link; remove it"):
        locked(tmp_path).__enter__()
    assert (tmp_path / "precious").read_text() == "content"
