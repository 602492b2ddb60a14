"""The text that a run is validated on, and losses in bits per byte, which do not depend on the tokenizer."""

import json
import math
from pathlib import Path
from typing import Final, NamedTuple

from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.files import read_regular, sha256

NATS: Final = "nats per token"
BITS: Final = "bits per byte"
_FILE_NAME: Final = "data.json"
"""As ``mythos.data.kept`` writes it."""
_MANIFEST: Final = "manifest.json"
"""As ``mythos.data.manifest`` writes it."""


class Text(NamedTuple):
    """The held-out text of a run."""

    tokenizer_sha256: str
    bytes_per_token: float | None
    """UTF-8 bytes per token; None if it is not known."""

    @property
    def bits_per_nat(self) -> float:
        """Bits per byte for each nat per token; NaN where the bytes per token are not known."""
        return math.nan if self.bytes_per_token is None else 1 / (math.log(2) * self.bytes_per_token)


def read_text(run: Path, config: RunConfig) -> Text | None:
    """The text of a run, from ``data.json`` of its directory; None without that file.

    A run of an earlier version did not record its bytes per token; they are read from its data where these are still
    in their folder, unchanged.

    Raises:
        ConfigError: ``data.json`` is damaged.
    """
    path = run / _FILE_NAME
    if not path.is_file():
        return None
    try:
        kept = json.loads(read_regular(path))
        tokenizer, fingerprint = kept["tokenizer_sha256"], kept["data_fingerprint"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: damaged; resume the run, which writes it again, or restore it.") from None
    bytes_per_token = kept.get("validation_bytes_per_token")
    if bytes_per_token is None and config.data.dir is not None:
        bytes_per_token = _from_manifest(Path(config.data.dir) / _MANIFEST, fingerprint)
    return Text(tokenizer, bytes_per_token)


def _from_manifest(path: Path, fingerprint: str) -> float | None:
    """Bytes per token of the held-out text; None if the data are not those of the fingerprint, or are of a task."""
    if not path.is_file() or sha256(path)[:16] != fingerprint:
        return None
    split = json.loads(read_regular(path))["splits"].get("validation")
    if split is None or split.get("examples_file") is not None:
        return None
    num_bytes, num_tokens = (sum(shard[key] for shard in split["shards"]) for key in ("num_bytes", "num_tokens"))
    return num_bytes / num_tokens if num_bytes and num_tokens else None
