"""What a checkpoint says about itself."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from mythos.config.base import ConfigError
from mythos.files import sha256

FILE_NAME: Final = "manifest.json"
VERSION: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Written last into a checkpoint's directory; a directory without one is no checkpoint."""

    version: int
    step: int
    tokens: int
    next_sample: int
    """Where the data stream goes on."""
    config: dict[str, Any]
    fingerprint: str
    """Of the configuration."""
    data_fingerprint: str
    """Of the packed data set."""
    code_version: str
    files: dict[str, str]
    """SHA-256 of every other file, by path relative to the directory."""

    def write(self, directory: Path) -> None:
        """Put the manifest into ``directory``."""
        (directory / FILE_NAME).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def read_manifest(directory: Path) -> Manifest:
    """Read a manifest without looking at the other files.

    Raises:
        ConfigError: the directory holds no checkpoint, or one of another format.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise ConfigError(f"{directory}: no checkpoint here ({FILE_NAME} is missing).")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version = raw["version"]
    except (ValueError, KeyError, TypeError, OSError):
        raise ConfigError(f"{path}: damaged; it is not a manifest any more.") from None
    if version != VERSION:
        raise ConfigError(f"{path}: format {version}, but this version of mythos reads format {VERSION}.")
    return Manifest(**raw)


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below ``directory`` but the manifest."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != FILE_NAME)
    return {str(path.relative_to(directory)): sha256(path) for path in files}


def verify(directory: Path) -> Manifest:
    """Read a manifest and hold it against the files.

    Raises:
        ConfigError: a file is missing, unknown or altered; the message names it.
    """
    manifest = read_manifest(directory)
    found = digests(directory)
    for name in sorted(manifest.files.keys() | found.keys()):
        if name not in found:
            raise ConfigError(f"{directory}: {name} is missing.")
        if name not in manifest.files:
            raise ConfigError(f"{directory}: {name} is not in the manifest.")
        if found[name] != manifest.files[name]:
            raise ConfigError(f"{directory}: {name} was altered since it was written (SHA-256 differs).")
    return manifest
