"""What a checkpoint says about itself."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from mythos.config.base import ConfigError
from mythos.files import is_below, resolves_below, sha256, write_text

FILE_NAME: Final = "manifest.json"
VERSION: Final = 2
BEST_METRIC: Final = "validation_loss"
"""Entry of ``Manifest.metrics`` by which retention knows the best checkpoints; lower is better."""
_NUM_HASHERS: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Written last into a checkpoint's directory; a directory without one is no checkpoint."""

    version: int = VERSION
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
    layout: dict[str, Any]
    """How the run was spread when it was saved: ``kind``, ``world_size``, ``ep_size``, ``zero_stage``."""
    checksums: dict[str, str] = field(default_factory=dict)
    """``fragments.checksum`` of every whole tensor by ``name|field``, 16 hexadecimal digits."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every other file, by path relative to the directory."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What was known of the model when it was saved."""

    def write(self, directory: Path) -> None:
        """Put the manifest into ``directory``."""
        write_text(directory / FILE_NAME, json.dumps(asdict(self), indent=1))


def read_manifest(directory: Path) -> Manifest:
    """Read a manifest without looking at the other files.

    Raises:
        ConfigError: the directory holds no checkpoint, one of another format, or one that names files outside of it.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise ConfigError(f"{directory}: no checkpoint here ({FILE_NAME} is missing).")
    manifest = parse_manifest(path.read_bytes(), str(path))
    for name in manifest.files:
        if not resolves_below(directory, name):
            raise ConfigError(f"{path}: names the file {name}, a link that leads out of the checkpoint.")
    return manifest


def parse_manifest(text: bytes, place: str) -> Manifest:
    """Read a manifest's text; ``place`` is what errors call it.

    Raises:
        ConfigError: damaged, of another format, or naming files outside of its directory.
    """
    try:
        raw = json.loads(text)
        version = raw["version"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{place}: damaged; it is not a manifest any more.") from None
    if version != VERSION:
        raise ConfigError(f"{place}: format {version}, but this version of mythos reads format {VERSION}.")
    try:
        manifest = TypeAdapter(Manifest).validate_python(raw)
    except ValueError:
        raise ConfigError(f"{place}: damaged; it is not a manifest any more.") from None
    for name in manifest.files:
        if not is_below(name):
            raise ConfigError(f"{place}: names the file {name!r}, which is not inside of the checkpoint.")
    return manifest


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below ``directory`` but the manifest, several at a time."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path != directory / FILE_NAME]
    names = [path.relative_to(directory).as_posix() for path in files]
    with ThreadPoolExecutor(_NUM_HASHERS) as pool:
        return dict(zip(names, pool.map(sha256, files), strict=True))


def verify(directory: Path) -> Manifest:
    """Read a manifest and hold it against the files.

    Raises:
        ConfigError: a file is missing, unknown or altered; the message names it.
    """
    manifest = read_manifest(directory)
    compare(manifest.files, digests(directory), str(directory))
    return manifest


def compare(stated: Mapping[str, str], found: Mapping[str, str], place: str) -> None:
    """Hold a manifest's sums against those of the files.

    Raises:
        ConfigError: they differ; the message names the first such file in ``place``.
    """
    for name in sorted(stated.keys() | found.keys()):
        if name not in found:
            raise ConfigError(f"{place}: {name} is missing.")
        if name not in stated:
            raise ConfigError(f"{place}: {name} is not in the manifest.")
        if found[name] != stated[name]:
            raise ConfigError(f"{place}: {name} was altered since it was written (SHA-256 differs).")
