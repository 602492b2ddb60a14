"""Write all weights and buffers of a checkpoint into one safetensors file."""

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
    """Path of the checkpoint that was read, and the size of the file that was written."""

    checkpoint: Path
    num_tensors: int
    num_elements: int


def consolidate(path: Path, target: Path, dtype: torch.dtype | None) -> Consolidated:
    """Write the weights under the model's own names; memory never holds more than one tensor and its conversion.

    Args:
        path: directory of a checkpoint, or of a run, whose newest valid checkpoint is read.
        target: the file to write; an existing one is replaced.
        dtype: data type of all floating-point tensors in the file; None keeps the stored types.

    Raises:
        ConfigError: no checkpoint verifies, or the target lies inside it.
    """
    checkpoint, manifest = _find(path)
    if target.resolve().is_relative_to(checkpoint.resolve()):
        raise ConfigError(f"--to: {target} lies in the checkpoint, which would fail verification; choose another.")
    reader = FragmentReader(checkpoint)
    names = [name for name in reader.names if "weight" in reader.fields(name)]

    def target_dtype(name: str) -> torch.dtype:
        stored = reader.dtype(name)
        return dtype if dtype is not None and stored.is_floating_point else stored

    def read(name: str) -> Tensor:
        return reader.tensor(name).to(target_dtype(name))

    metadata = {
        "format": "pt",
        "fingerprint": manifest.fingerprint,
        "step": str(manifest.step),
        "code_version": manifest.code_version,
    }
    with replacing(target) as temporary:
        write_tensors(temporary, {name: (target_dtype(name), reader.shape(name)) for name in names}, read, metadata)
    return Consolidated(checkpoint, len(names), sum(torch.Size(reader.shape(name)).numel() for name in names))


def _find(path: Path) -> tuple[Path, Manifest]:
    if (path / FILE_NAME).exists():
        return path, verify(path)
    result = newest(path / FOLDER)
    if result is None:
        raise ConfigError(f"{path}: no checkpoint that verifies; name a run's or a checkpoint's directory.")
    return result
