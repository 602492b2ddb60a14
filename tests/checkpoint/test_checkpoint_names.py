"""Only the names of checkpoints are read, sorted and deleted as checkpoints."""

from pathlib import Path

import pytest
from helpers import empty_checkpoint

from mythos.checkpoint.mirror import Mirror
from mythos.checkpoint.names import is_leftover, is_step_name, step_name, step_names, step_of
from mythos.checkpoint.store import checkpoints, keep
from mythos.config.base import decode
from mythos.config.run import CheckpointConfig

OTHERS = ["step-00000035.bak", "step-35", "step-000000035", "step-0000003x", "step-", "Step-00000035", "step-٠٠٠٠٠٠٣٥"]


def settings(**values: int) -> CheckpointConfig:
    return decode(CheckpointConfig, {"every": 1, **values})


def test_names_are_sorted_by_step_and_others_are_left_out() -> None:
    steps = [7, 99_999_999, 100_000_000, 1_234_567_890]
    names = [step_name(step) for step in steps]
    assert names[0] == "step-00000007"
    assert step_names([*OTHERS, *reversed(names)]) == names
    assert [step_of(name) for name in names] == steps


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_are_not_those_of_checkpoints(name: str) -> None:
    assert not is_step_name(name)
    with pytest.raises(ValueError, match="is not the name of a checkpoint"):
        step_of(name)
    assert not is_leftover(f".{name}")


def test_only_what_a_killed_save_leaves_is_a_leftover() -> None:
    leftovers = [".step-00000035.tmp", ".step-00000035.old", ".step-00000035.fetch", ".step-123456789.tmp"]
    others = [".step-00000035.bak", ".step-35.tmp", ".step-00000035", "step-00000035.tmp", ".step-000000035.old"]
    assert [name for name in [*leftovers, *others] if is_leftover(name)] == leftovers


def test_retention_and_saves_leave_the_copies_of_users(tmp_path: Path) -> None:
    kept = [*OTHERS, ".step-00000001.bak", "notes"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".step-00000009.tmp").mkdir()
    for step in (99_999_998, 99_999_999, 100_000_000):
        empty_checkpoint(tmp_path, step)
    assert [step_of(path.name) for path in checkpoints(tmp_path)] == [99_999_998, 99_999_999, 100_000_000]
    deleted = keep(tmp_path, settings(keep_last=1, keep_every=3))
    assert [path.name for path in deleted] == ["step-99999998"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*kept, "step-99999999", "step-100000000", "latest"]
    )


def test_the_mirror_leaves_them_too(tmp_path: Path) -> None:
    mirror = Mirror(str(tmp_path / "mirror"))
    for step in (99_999_998, 99_999_999, 100_000_000):
        mirror.copy(empty_checkpoint(tmp_path / "run", step))
    for name in OTHERS:
        (tmp_path / "mirror" / name).mkdir()
    (tmp_path / "mirror" / OTHERS[0] / "manifest.json").write_text("{}")
    assert mirror.checkpoints() == ["step-99999998", "step-99999999", "step-100000000"]
    assert mirror.prune(settings(keep_last=1, keep_every=3)) == ["step-99999998"]
    assert sorted(path.name for path in (tmp_path / "mirror").iterdir()) == sorted(
        [*OTHERS, "step-99999999", "step-100000000"]
    )
