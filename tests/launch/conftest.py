from pathlib import Path

import pytest


class Commands:
    """Stand-ins for commands of a scheduler, which write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, script: str = "") -> None:
        """A command that notes its arguments and runs ``script``."""
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.folder}/calls\n{script}\n')
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """What was called, in order."""
        notes = self.folder / "calls"
        return notes.read_text().splitlines() if notes.exists() else []


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The only commands on the path, beside bash and what scripts need; the working directory is a new one."""
    stand_ins = Commands(tmp_path / "bin")
    for name in ("bash", "cat", "sleep", "kill", "mkdir", "cp", "nohup", "setsid", "head", "sed", "git"):
        if real := next((p for p in (Path("/usr/bin") / name, Path("/bin") / name) if p.exists()), None):
            (tmp_path / "bin" / name).symlink_to(real)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return stand_ins
