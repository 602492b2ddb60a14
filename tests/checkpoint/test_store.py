from pathlib import Path

import pytest

from mythos.checkpoint.manifest import VERSION, Manifest, read_manifest, verify
from mythos.checkpoint.store import checkpoints, newest, save
from mythos.config.base import ConfigError


def manifest(step: int) -> Manifest:
    return Manifest(
        version=VERSION,
        step=step,
        tokens=step * 10,
        next_sample=step,
        config={},
        fingerprint="f",
        data_fingerprint="d",
        code_version="0",
        files={},
    )


def write(directory: Path, step: int, keep_last: int = 10) -> Path:
    def fill(path: Path) -> None:
        (path / "shards").mkdir()
        (path / "shards" / "a.bin").write_bytes(bytes([step]) * 100)
        (path / "b.bin").write_bytes(b"b")

    return save(directory, manifest(step), fill, keep_last)


def test_a_checkpoint_verifies_and_knows_its_files(tmp_path: Path) -> None:
    found = verify(write(tmp_path, 7))
    assert found.step == 7
    assert sorted(found.files) == ["b.bin", "shards/a.bin"]


def test_a_save_that_dies_leaves_the_previous_one_and_no_scraps(tmp_path: Path) -> None:
    write(tmp_path, 1)

    def fail(path: Path) -> None:
        (path / "half.bin").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, manifest(2), fail, keep_last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert verify(tmp_path / "step-00000001").step == 1


def test_the_oldest_are_dropped(tmp_path: Path) -> None:
    for step in (1, 2, 4):
        write(tmp_path, step, keep_last=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000004"]


def test_a_save_never_drops_itself_for_a_later_one_that_was_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 9)
    write(tmp_path, 5, keep_last=1)
    write(tmp_path, 6, keep_last=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000006", "step-00000009"]


def test_scraps_of_a_killed_save_are_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".step-00000003.tmp-123").mkdir(parents=True)
    write(tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, 3)
    assert verify(write(tmp_path, 3)).step == 3


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "add", "manifest", "no manifest"])
def test_damage_is_named_and_the_checkpoint_before_is_taken(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 1)
    last = write(tmp_path, 2)
    shard = last / "shards" / "a.bin"
    match damage:
        case "flip":
            shard.write_bytes(b"\x02" * 99 + b"\x03")
        case "truncate":
            shard.write_bytes(b"\x02" * 99)
        case "delete":
            shard.unlink()
        case "add":
            (last / "stranger.bin").write_bytes(b"")
        case "manifest":
            (last / "manifest.json").write_text('{"version": 1, "st')
        case "no manifest":
            (last / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="step-00000002"):
        verify(last)
    warnings: list[str] = []
    path, found = newest(tmp_path, warnings.append)
    assert (path.name, found.step) == ("step-00000001", 1)
    assert len(warnings) == 1


def test_another_format_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, 1) / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(ConfigError, match="format 9, but this version of mythos reads format 1"):
        read_manifest(path.parent)


def test_no_checkpoints_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "absent", print) is None
