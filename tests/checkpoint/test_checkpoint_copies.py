import threading
import time
from pathlib import Path

import pytest
from test_store import settings, write

from mythos.checkpoint.copies import Copies
from mythos.checkpoint.deadline import Overdue, Stopped, within
from mythos.checkpoint.mirror import Mirror


def test_a_call_returns_raises_or_is_overdue() -> None:
    assert within(60, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0)
    released = threading.Event()
    begun_at = time.monotonic()
    with pytest.raises(Overdue):
        within(0.2, released.wait)
    with pytest.raises(Overdue):
        within(-1.0, released.wait)
    with pytest.raises(Stopped):
        within(600, released.wait, lambda: time.monotonic() - begun_at > 0.3)
    assert time.monotonic() - begun_at < 60
    released.set()


def test_the_newest_is_copied_first_and_then_the_others_that_still_exist(tmp_path: Path) -> None:
    mirror, begun, released = Mirror(str(tmp_path / "mirror")), [], threading.Event()
    copy = mirror.copy

    def waiting(checkpoint: Path) -> None:
        begun.append(checkpoint.name)
        released.wait()
        copy(checkpoint)

    mirror.copy = waiting
    copied: list[float] = []
    copies = Copies(mirror, settings(keep_last=9), "run", copied.append)
    paths = [write(tmp_path / "here", step) for step in (1, 2, 3, 4)]
    for path in paths:
        copies.add(path)
    with copies.in_use() as in_use:
        assert in_use == {"step-00000001"}
        paths[1].rename(tmp_path / "deleted")
    assert copies.unfinished() == paths
    copies.wait(seconds=0.05)
    released.set()
    copies.wait(seconds=60)
    assert begun == ["step-00000001", "step-00000004", "step-00000003"]
    assert mirror.checkpoints() == ["step-00000001", "step-00000003", "step-00000004"]
    assert len(copied) == 3
    assert copies.unfinished() == []


@pytest.mark.parametrize("error", [ZeroDivisionError("odd"), OSError("odd")])
def test_whatever_a_copy_raises_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    mirror, copied = Mirror(str(tmp_path / "mirror")), []
    monkeypatch.setattr(mirror, "copy", lambda checkpoint: (_ for _ in ()).throw(error))
    copies = Copies(mirror, settings(), "run", copied.append)
    path = write(tmp_path / "here", 1)
    copies.add(path)
    copies.wait(seconds=60)
    assert (copied, copies.unfinished()) == ([], [])
    assert f"odd step-00000001 is only in {path.parent}" in capsys.readouterr().err
