from pathlib import Path

import pytest


class Commands:
    """Stand-ins for commands of a scheduler, which log their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, script: str = "") -> None:
        """Add a command that logs its arguments and runs ``script``."""
        path = self.folder / name
        path.unlink(missing_ok=True)  # a link would lead to the machine's own command
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.folder}/calls\n{script}\n')
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """The calls in order, as command lines."""
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The only commands on the path besides bash and tools of the scripts; the working directory is a new folder."""
    stand_ins = Commands(tmp_path / "bin")
    for name in ("bash", "cat", "sleep", "kill", "mkdir", "cp", "nohup", "setsid", "head", "sed", "git"):
        if real := next((p for p in (Path("/usr/bin") / name, Path("/bin") / name) if p.exists()), None):
            (tmp_path / "bin" / name).symlink_to(real)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return stand_ins
