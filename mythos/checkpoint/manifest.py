"""The manifest of a checkpoint: its contents, and the verification of the files."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from mythos.config.base import ConfigError
from mythos.config.os_errors import explained, sentence
from mythos.config.records import SCHEMA
from mythos.config.schema import check_schema
from mythos.files import is_below, read_regular, resolves_below, sha256, write_text

FILE_NAME: Final = "manifest.json"
BEST_METRIC: Final = "validation_loss"
"""Entry of ``Manifest.metrics`` by which retention ranks checkpoints; lower is better."""
SUM: Final = "sha256"
"""Last key of the file: the SHA-256 of the text without it. Manifests from before it have none."""
_SUM_AT_END: Final = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\Z')
_NUM_HASHERS: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Contents of ``manifest.json``, the last file written; a directory without it is no checkpoint."""

    version: int = SCHEMA
    step: int
    tokens: int
    next_sample: int
    """Position in the data stream of the first sample not trained on."""
    config: dict[str, Any]
    fingerprint: str
    """Fingerprint of the configuration."""
    data_fingerprint: str
    """Fingerprint of the packed data set."""
    code_version: str
    layout: dict[str, Any]
    """Parallel layout of the run that saved it: ``kind``, ``world_size``, ``ep_size``, ``zero_stage``."""
    checksums: dict[str, str] = field(default_factory=dict)
    """``fragments.checksum`` of every whole tensor by ``name|field``, as 16 hexadecimal digits."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every other file, by path relative to the directory."""
    packages: dict[str, str] = field(default_factory=dict)
    """Package and version of each loop part from another package, by the part's name."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the model at the time of the save."""
    run_id: str | None = None
    """``ownership``: the run that it belongs to; None from versions that had no ids."""
    run_dir: str | None = None
    """Absolute path of that run's directory."""

    def write(self, directory: Path) -> None:
        """Write the manifest into ``directory``."""
        write_text(directory / FILE_NAME, manifest_text(asdict(self)))


def manifest_text(raw: Mapping[str, Any]) -> str:
    """Return the text of a manifest with these fields and its own sum, which replaces one that they contain."""
    text = json.dumps({key: value for key, value in raw.items() if key != SUM}, indent=1)
    own_sum = hashlib.sha256(text.encode()).hexdigest()
    return text.removesuffix("\n}") + f',\n "{SUM}": "{own_sum}"\n}}'


def read_manifest(directory: Path) -> Manifest:
    """Read a manifest without reading the other files.

    Raises:
        ConfigError: the directory holds no checkpoint, cannot be read, has another schema, or names files outside it.
    """
    path = directory / FILE_NAME
    with explained(path):
        try:
            text = read_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{directory}: no checkpoint here ({FILE_NAME} is missing).") from None
    manifest = parse_manifest(text, str(path))
    with explained(directory):
        for name in manifest.files:
            if not resolves_below(directory, name):
                raise ConfigError(f"{path}: names the file {name}, a link that leads out of the checkpoint.")
    return manifest


def parse_manifest(text: bytes, label: str) -> Manifest:
    """Parse the text of a manifest; error messages name it ``label``.

    Raises:
        ConfigError: it is damaged, has another schema, or names files outside its directory.
    """
    try:
        raw = json.loads(text)
        version = raw["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"{label}: damaged; it is not a valid manifest.") from None
    end = _SUM_AT_END.search(text)
    if end is not None and hashlib.sha256(text[: end.start()] + b"\n}").hexdigest() != end[1].decode():
        raise _altered(label)
    check_schema(label, version)
    if end is None and raw.keys() - {each.name for each in fields(Manifest)}:  # may be what is left of the sum's key
        raise _altered(label)
    try:
        manifest = TypeAdapter(Manifest).validate_python(raw)
    except ValueError:
        raise ConfigError(f"{label}: damaged; it is not a valid manifest.") from None
    for name in manifest.files:
        if not is_below(name):
            raise ConfigError(f"{label}: names the file {name!r}, which is not inside the checkpoint.")
    return manifest


def _altered(label: str) -> ConfigError:
    return ConfigError(f"{label}: damaged; it was altered since it was written (it differs from its own SHA-256).")


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below ``directory`` but the manifest, several at a time.

    Raises:
        OSError: a folder or a file cannot be read.
    """
    files = [path for path in sorted(_files_below(directory)) if path != directory / FILE_NAME]
    names = [path.relative_to(directory).as_posix() for path in files]
    with ThreadPoolExecutor(_NUM_HASHERS) as pool:
        return dict(zip(names, pool.map(sha256, files), strict=True))


def _files_below(directory: Path) -> Iterator[Path]:
    """Every file below a directory; ``Path.rglob`` would leave out folders that cannot be read."""

    def fail(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(directory, onerror=fail):
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def verify(directory: Path) -> Manifest:
    """Read a manifest and compare it with the files.

    Raises:
        ConfigError: a file is missing, unknown, altered or cannot be read; the message names it.
    """
    manifest = read_manifest(directory)
    try:
        actual = digests(directory)
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be read: {sentence(error)}.") from error
    compare(manifest.files, actual, str(directory))
    return manifest


def compare(stated: Mapping[str, str], actual: Mapping[str, str], label: str) -> None:
    """Compare the digests in a manifest with those of the files.

    Raises:
        ConfigError: they differ; the message names ``label`` and the first such file.
    """
    for name in sorted(stated.keys() | actual.keys()):
        if name not in actual:
            raise ConfigError(f"{label}: {name} is missing.")
        if name not in stated:
            raise ConfigError(f"{label}: {name} is not in the manifest.")
        if actual[name] != stated[name]:
            raise ConfigError(f"{label}: {name} was altered since it was written (SHA-256 differs).")
