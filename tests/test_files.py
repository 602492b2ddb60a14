import fcntl
import os
from pathlib import Path
from typing import IO

import pytest

from mythos.files import (
    install,
    is_below,
    open_locked,
    remove,
    rename_to_old,
    replacing,
    resolves_below,
    restrict_umask,
    sha256,
    write_text,
)


def test_an_error_leaves_the_old_content_and_no_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_directories_are_written_and_removed_completely(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with replacing(path) as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_bytes(b"abc")
    assert sha256(path / "inner" / "file").startswith("ba7816bf")
    remove(path)
    remove(path)
    assert not path.exists()


def test_links_to_each_other_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert not resolves_below(tmp_path, "a")


def test_what_a_killed_process_left_and_planted_links_are_removed_first(tmp_path: Path) -> None:
    target, temporary = tmp_path / "target", tmp_path / f".file.tmp-{os.getpid()}"
    target.write_text("theirs")
    temporary.symlink_to(target)
    write_text(tmp_path / "file", "ours")
    assert (target.read_text(), (tmp_path / "file").read_text()) == ("theirs", "ours")
    (tmp_path / f".folder.tmp-{os.getpid()}").mkdir()
    with replacing(tmp_path / "folder") as folder:
        folder.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "target"]


def test_removing_a_link_keeps_its_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    remove(tmp_path / "link")
    assert target.is_dir()


def test_install_replaces_an_existing_directory(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("old", "new"):
        (tmp_path / ".new").mkdir()
        (tmp_path / ".new" / content).touch()
        install(tmp_path / ".new", path)
        assert [one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*")] == ["folder", f"folder/{content}"]


def test_a_deletion_that_was_interrupted_is_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "folder" / "inner").mkdir(parents=True)
        assert rename_to_old(tmp_path / "folder") == tmp_path / ".folder.old"
        assert [one.name for one in tmp_path.iterdir()] == [".folder.old"]
    assert rename_to_old(tmp_path / "absent") == tmp_path / ".absent.old"


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "//etc", "../a", "a/../../b", "a/..", "a\0b", "a\\b"])
def test_a_name_that_points_outside_its_directory_is_detected(tmp_path: Path, name: str) -> None:
    assert not is_below(name)
    assert not resolves_below(tmp_path, name)


def test_links_are_followed_before_a_name_is_trusted(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside / "real"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (inside / "away").symlink_to(outside)
    (inside / "file").symlink_to(outside / "file")
    (inside / "near").symlink_to(inside / "real")
    (tmp_path / "door").symlink_to(inside)
    for name, is_inside in {
        "real/file": True,
        "near/file": True,
        "absent": True,
        "file": False,
        "away/file": False,
    }.items():
        assert resolves_below(inside, name) is is_inside
        assert resolves_below(tmp_path / "door", name) is is_inside


@pytest.mark.parametrize(("before", "after"), [(0o000, 0o022), (0o002, 0o022), (0o022, 0o022), (0o077, 0o077)])
def test_the_umask_only_becomes_stricter(before: int, after: int) -> None:
    own = os.umask(before)
    try:
        restrict_umask()
        assert os.umask(own) == after
    finally:
        os.umask(own)


def test_a_lock_is_held_by_one_process_and_taken_anew_once_its_holder_has_removed_it(tmp_path, monkeypatch) -> None:
    path, flock, locked = tmp_path / "lock", fcntl.flock, []

    def remove_before_the_first_lock(file: IO[str], operation: int) -> None:
        if not locked:
            path.unlink()
        locked.append(operation)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_before_the_first_lock)
    with open_locked(path) as file:
        assert len(locked) == 2
        assert os.path.samestat(path.stat(), os.fstat(file.fileno()))
        with pytest.raises(BlockingIOError):
            open_locked(path)
    open_locked(path).close()
