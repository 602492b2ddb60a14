"""Tensors as flat pieces, so that what one layout of ranks wrote any other layout can read."""

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
"""Fields that hold one number for a whole tensor, at start 0."""
_CHUNK_NUMEL: Final = 1 << 16
"""Its temporaries stay in the cache."""


class Fragment(NamedTuple):
    """A contiguous piece of a flattened tensor."""

    name: str
    """Of the parameter or buffer in the model, e.g. ``core.blocks.0.ffn.experts.w1``."""
    field: str
    """``weight``, or what the optimiser keeps for it: ``exp_avg``, ``exp_avg_sq``, ``momentum``, ``step``."""
    start: int
    """Offset of the first element in the flattened whole tensor."""
    value_N: Tensor
    """Contiguous, on the CPU; it may share memory with others."""


def write_shard(path: Path, fragments: Iterable[Fragment], shapes: dict[str, tuple[int, ...]]) -> None:
    """Write one rank's fragments into one safetensors file and flush it to disk.

    Args:
        shapes: of the whole tensors, by name; fields of one number are not listed.
    """
    values: dict[str, Tensor] = {}
    for name, field, start, value_N in fragments:
        key = f"{name}|{field}|{start}"
        assert "|" not in name + field, f"{name}, {field}: '|' separates the parts of a key"
        assert value_N.dim() == 1, f"{key}: a fragment is flat"
        whole = whole_numel(shapes, name, field)
        assert start + value_N.numel() <= whole, f"{key} reaches beyond its tensor"
        if not value_N.numel() and whole:
            continue
        assert key not in values, f"{key} was given twice"
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
    """Any range of any tensor of a checkpoint, from all its ``shard-*.safetensors``.

    Headers are read at once, data when asked for. Overlapping fragments are replicas; the first found is read.

    Raises:
        ConfigError: no shards, a damaged one, or shards that disagree about a shape.
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
        """What is stored for a parameter or buffer."""
        self._check(name)
        return set(self._pieces[name])

    def dtype(self, name: str, field: str = "weight") -> torch.dtype:
        """Type as stored."""
        return self._of(name, field)[0].entry.dtype

    def read(self, name: str, field: str, start: int = 0, length: int | None = None) -> Tensor:
        """``length`` elements (None: all) from ``start`` on of a flattened tensor, in the type as stored.

        Raises:
            ConfigError: the tensor is unknown or an element of the range is in no shard.
        """
        pieces = self._of(name, field)
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
        """A whole tensor in its shape."""
        return self.read(name, field).view(() if field in SCALAR_FIELDS else self.shape(name))

    def _add(self, path: Path) -> None:
        """Note what a shard holds."""
        header = read_header(path)
        for name, shape in json.loads(header.metadata.get("shapes", "{}")).items():
            if self._shapes.setdefault(name, tuple(shape)) != tuple(shape):
                raise ConfigError(f"{path}: {name} has shape {tuple(shape)}, in a shard before {self._shapes[name]}.")
        for key, entry in header.entries.items():
            try:
                name, field, text = key.split("|")
                start = int(text)
            except ValueError:
                raise ConfigError(f"{path}: {key} is no name|field|start; it is not a shard of a checkpoint.") from None
            pieces = self._pieces[name][field]
            if pieces and pieces[0].entry.dtype != entry.dtype:
                raise ConfigError(f"{path}: {key} is {entry.dtype}, in a shard before {pieces[0].entry.dtype}.")
            if name not in self._shapes:
                raise ConfigError(f"{path}: {name} has no shape; it is not a shard of a checkpoint.")
            pieces.append(_Piece(start, start + math.prod(entry.shape), path, entry))

    def _check(self, name: str) -> None:
        if name not in self._pieces:
            raise ConfigError(f"{self._directory}: no tensor named {name}.")

    def _of(self, name: str, field: str) -> list[_Piece]:
        self._check(name)
        if field not in self._pieces[name]:
            raise ConfigError(f"{self._directory}: {name} has no {field}; stored are {sorted(self._pieces[name])}.")
        return self._pieces[name][field]


def checksum(value_N: Tensor, start: int) -> int:
    """A 64-bit sum over elements that tells any change of a value or of its place, with probability 1 - 2^-64.

    The sum of the checksums of any partition into fragments is the whole tensor's, modulo 2^64. Each element adds
    ``mix(bits + (index + 1) * golden)``; mix is one round of a multiply-xorshift hash (splitmix64, Steele et al. 2014,
    https://doi.org/10.1145/2660193.2660195), a bijection, so one changed element always shows.

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
