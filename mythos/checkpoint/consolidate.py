"""All weights and buffers of a checkpoint in one safetensors file."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mythos.checkpoint.fragments import FragmentReader
from mythos.checkpoint.manifest import FILE_NAME, Manifest, verify
from mythos.checkpoint.store import FOLDER, newest
from mythos.checkpoint.tensor_file import write_tensors
from mythos.config.base import ConfigError
from mythos.files import replacing


class Consolidated(NamedTuple):
    """What was written."""

    checkpoint: Path
    num_tensors: int
    num_elements: int


def consolidate(place: Path, target: Path, dtype: torch.dtype | None) -> Consolidated:
    """Write the weights under the model's own names; memory never holds more than one tensor and its conversion.

    Args:
        place: a checkpoint, or a run whose newest sound one is taken.
        target: the file to write; an existing one is replaced.
        dtype: of all floating-point tensors; None leaves them as stored.

    Raises:
        ConfigError: no checkpoint that verifies, or a target inside of it.
    """
    checkpoint, manifest = _find(place)
    if target.resolve().is_relative_to(checkpoint.resolve()):
        raise ConfigError(f"--to: {target} lies in the checkpoint, which would not verify any more; choose another.")
    reader = FragmentReader(checkpoint)
    names = [name for name in reader.names if "weight" in reader.fields(name)]

    def stored(name: str) -> torch.dtype:
        found = reader.dtype(name)
        return dtype if dtype is not None and found.is_floating_point else found

    def read(name: str) -> Tensor:
        return reader.tensor(name).to(stored(name))

    metadata = {
        "format": "pt",
        "fingerprint": manifest.fingerprint,
        "step": str(manifest.step),
        "code_version": manifest.code_version,
    }
    with replacing(target) as temporary:
        write_tensors(temporary, {name: (stored(name), reader.shape(name)) for name in names}, read, metadata)
    return Consolidated(checkpoint, len(names), sum(torch.Size(reader.shape(name)).numel() for name in names))


def _find(place: Path) -> tuple[Path, Manifest]:
    if (place / FILE_NAME).exists():
        return place, verify(place)
    found = newest(place / FOLDER)
    if found is None:
        raise ConfigError(f"{place}: no checkpoint that verifies; name a run's or a checkpoint's directory.")
    return found
