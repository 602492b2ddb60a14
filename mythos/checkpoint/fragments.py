"""Store tensors as flat pieces, which any parallel layout can read, whichever layout wrote them."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mythos.checkpoint.tensor_file import Entry, read_header, read_range, write_tensors
from mythos.config.base import ConfigError

SCALAR_FIELDS: Final = {"step"}
"""Fields that hold one scalar for a whole tensor, at start 0."""
_CHUNK_NUMEL: Final = 1 << 16
"""Elements that ``checksum`` hashes at a time; temporaries of this size stay in the CPU cache."""


class Fragment(NamedTuple):
    """A contiguous piece of a flattened tensor."""

    name: str
    """Name of the parameter or buffer in the model, e.g. ``core.blocks.0.ffn.experts.w1``."""
    field: str
    """``weight``, or a state of the optimiser: ``exp_avg``, ``exp_avg_sq``, ``momentum``, ``step``."""
    start: int
    """Offset of the first element in the flattened whole tensor."""
    value_N: Tensor
    """Contiguous, on the CPU; it may share memory with others."""


def write_shard(path: Path, fragments: Iterable[Fragment], shapes: dict[str, tuple[int, ...]]) -> None:
    """Write one rank's fragments into one safetensors file and flush it to disk.

    Args:
        shapes: shapes of the whole tensors by name; scalar fields are not listed.
    """
    values: dict[str, Tensor] = {}
    for name, field, start, value_N in fragments:
        key = f"{name}|{field}|{start}"
        assert "|" not in name + field, f"{name}, {field}: must not contain '|', which separates the parts of a key"
        assert value_N.dim() == 1, f"{key}: a fragment must be flat"
        whole = whole_numel(shapes, name, field)
        assert start + value_N.numel() <= whole, f"{key} exceeds its tensor"
        if not value_N.numel() and whole:
            continue
        assert key not in values, f"{key} is a duplicate"
        values[key] = value_N
    layout = {key: (value_N.dtype, tuple(value_N.shape)) for key, value_N in values.items()}
    write_tensors(path, layout, values.__getitem__, {"shapes": json.dumps(shapes)})


def whole_numel(shapes: dict[str, tuple[int, ...]], name: str, field: str) -> int:
    """Number of elements of a field's whole tensor."""
    return 1 if field in SCALAR_FIELDS else math.prod(shapes[name])


class _Piece(NamedTuple):
    start: int
    stop: int
    path: Path
    entry: Entry


class FragmentReader:
    """Reads any range of any tensor of a checkpoint from its files ``shard-*.safetensors``.

    Headers are read at construction, data on request. Overlapping fragments are replicas; the first one is read.

    Raises:
        ConfigError: no shards, a damaged shard, or shards that disagree about a shape or data type.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._pieces: dict[str, dict[str, list[_Piece]]] = defaultdict(lambda: defaultdict(list))
        paths = sorted(directory.glob("shard-*.safetensors"))
        if not paths:
            raise ConfigError(f"{directory}: no shard-*.safetensors here; name a checkpoint's directory.")
        for path in paths:
            self._add(path)
        self.names = sorted(self._pieces)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a whole parameter or buffer."""
        self._check(name)
        return self._shapes[name]

    def fields(self, name: str) -> set[str]:
        """Names of the fields that are stored for a parameter or buffer."""
        self._check(name)
        return set(self._pieces[name])

    def dtype(self, name: str, field: str = "weight") -> torch.dtype:
        """Stored data type of a field."""
        return self._pieces_of(name, field)[0].entry.dtype

    def read(self, name: str, field: str, start: int = 0, length: int | None = None) -> Tensor:
        """Read ``length`` elements (None: all) of a flattened tensor from ``start`` on, in the stored data type.

        Raises:
            ConfigError: the tensor is unknown or an element of the range is in no shard.
        """
        pieces = self._pieces_of(name, field)
        stop = whole_numel(self._shapes, name, field) if length is None else start + length
        out_N = torch.empty(stop - start, dtype=pieces[0].entry.dtype)
        position = start
        while position < stop:
            piece = next((one for one in pieces if one.start <= position < one.stop), None)
            if piece is None:
                raise ConfigError(f"{self._directory}: element {position} of {name} ({field}) is in no shard.")
            until = min(stop, piece.stop)
            read_range(piece.path, piece.entry, position - piece.start, out_N[position - start : until - start])
            position = until
        return out_N

    def tensor(self, name: str, field: str = "weight") -> Tensor:
        """Read a whole tensor in its shape."""
        return self.read(name, field).view(() if field in SCALAR_FIELDS else self.shape(name))

    def _add(self, path: Path) -> None:
        """Register the shapes and fragments of a shard."""
        header = read_header(path)
        for name, shape in json.loads(header.metadata.get("shapes", "{}")).items():
            if self._shapes.setdefault(name, tuple(shape)) != tuple(shape):
                raise ConfigError(f"{path}: {name} has shape {tuple(shape)}, elsewhere {self._shapes[name]}.")
        for key, entry in header.entries.items():
            try:
                name, field, text = key.split("|")
                start = int(text)
            except ValueError:
                raise ConfigError(f"{path}: {key} is not name|field|start; it is not a checkpoint's shard.") from None
            pieces = self._pieces[name][field]
            if pieces and pieces[0].entry.dtype != entry.dtype:
                raise ConfigError(f"{path}: {key} is {entry.dtype}, elsewhere {pieces[0].entry.dtype}.")
            if name not in self._shapes:
                raise ConfigError(f"{path}: {name} has no shape; it is not a checkpoint's shard.")
            pieces.append(_Piece(start, start + math.prod(entry.shape), path, entry))

    def _check(self, name: str) -> None:
        if name not in self._pieces:
            raise ConfigError(f"{self._directory}: no tensor named {name}.")

    def _pieces_of(self, name: str, field: str) -> list[_Piece]:
        self._check(name)
        if field not in self._pieces[name]:
            raise ConfigError(f"{self._directory}: {name} has no {field}; its fields are {sorted(self._pieces[name])}.")
        return self._pieces[name][field]


def checksum(value_N: Tensor, start: int) -> int:
    """64-bit checksum that detects a change of a value or of its position with probability 1 - 2^-64.

    The checksums of the fragments of any partition add up to the whole tensor's checksum, modulo 2^64. Each element
    adds ``mix(bits + (index + 1) * golden)``; mix is one round of a multiply-xorshift hash (splitmix64, Steele et al.
    2014, https://doi.org/10.1145/2660193.2660195), a bijection, so one changed element is always detected.

    Args:
        value_N: contiguous, on the CPU, of any real type.
        start: index of its first element in the flattened whole tensor.
    """
    bits_N = value_N.view(torch.uint8).numpy().view(f"<u{value_N.dtype.itemsize}")
    total = 0
    for first in range(0, len(bits_N), _CHUNK_NUMEL):
        chunk_N = bits_N[first : first + _CHUNK_NUMEL]
        mixed_N = np.arange(start + first + 1, start + first + 1 + len(chunk_N), dtype=np.uint64)
        mixed_N *= np.uint64(0x9E3779B97F4A7C15)
        mixed_N += chunk_N
        mixed_N ^= mixed_N >> np.uint64(32)
        mixed_N *= np.uint64(0xD6E8FEB86659FD93)
        mixed_N ^= mixed_N >> np.uint64(32)
        total += int(mixed_N.sum(dtype=np.uint64))
    return total % 2**64
