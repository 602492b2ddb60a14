"""The tokenizer of a run's data, kept in the run's directory, so that the run can be used without its data."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mythos.config.base import ConfigError, Count, config, decode, encode
from mythos.data.manifest import CHAT_TEMPLATE_FILE, TOKENIZER_FILE, read_common_manifest, validation_bytes_per_token
from mythos.files import replacing, sha256

FILE_NAME: Final = "data.json"
"""File of a run that states what its data are."""


@config
class KeptData:
    """What a run keeps of its data besides the tokenizer."""

    data_fingerprint: str
    """Fingerprint of the packed datasets."""
    tokenizer_sha256: str
    separator_id: Count
    """Id of the token that opens every document."""
    validation_bytes_per_token: float | None = None
    """UTF-8 bytes of held-out text per token; null for tasks, and in runs of earlier versions."""


def keep_tokenizer(run: Path, directories: Sequence[str], fingerprint: str, weights: Sequence[int] = (1,)) -> None:
    """Copy the tokenizer of the packed datasets into the run's directory; print a warning if they have none.

    Args:
        fingerprint: fingerprint of the datasets.
        weights: weights of the datasets in the held-out batches.
    """
    manifest, source = read_common_manifest(directories), Path(directories[0]) / TOKENIZER_FILE
    if not source.is_file() or sha256(source) != manifest.tokenizer_sha256:
        warning = f"{source} is not the tokenizer of the data, without which the run cannot be sampled or exported"
        print(f"warning: {warning}.", file=sys.stderr)
        return
    kept = KeptData(
        data_fingerprint=fingerprint,
        tokenizer_sha256=manifest.tokenizer_sha256,
        separator_id=manifest.separator_id,
        validation_bytes_per_token=validation_bytes_per_token(directories, weights),
    )
    template = source.with_name(CHAT_TEMPLATE_FILE)
    contents = {
        TOKENIZER_FILE: source.read_bytes(),
        **({CHAT_TEMPLATE_FILE: template.read_bytes()} if template.is_file() else {}),
        FILE_NAME: (json.dumps(encode(kept), indent=1) + "\n").encode(),
    }
    for name, content in contents.items():
        path = run / name
        if not path.is_file() or path.read_bytes() != content:
            with replacing(path) as temporary:
                temporary.write_bytes(content)


def kept_data(run: Path, fingerprint: str) -> KeptData | None:
    """Return what a run has kept, with its tokenizer checked; None for a run that has kept nothing.

    Args:
        fingerprint: fingerprint of the data in the run's checkpoint.

    Raises:
        ConfigError: the files are damaged, or are those of other data.
    """
    if (kept := _read(run)) is None:
        return None
    if kept.data_fingerprint != fingerprint:
        raise ConfigError(
            f"{run / FILE_NAME}: has the data fingerprint {kept.data_fingerprint}, but the checkpoint was trained on "
            f"{fingerprint}; restore {FILE_NAME} and {TOKENIZER_FILE} of the run."
        )
    path = run / TOKENIZER_FILE
    if not path.is_file() or sha256(path) != kept.tokenizer_sha256:
        raise ConfigError(
            f"{path}: missing or altered since the run began (SHA-256 is not {kept.tokenizer_sha256[:12]}); restore it "
            "from the run's data."
        )
    return kept


def _read(run: Path) -> KeptData | None:
    path = run / FILE_NAME
    if not path.is_file():
        return None
    try:
        return decode(KeptData, json.loads(path.read_bytes()))
    except ValueError:
        raise ConfigError(f"{path}: damaged; resume the run, which writes it again, or restore it.") from None
