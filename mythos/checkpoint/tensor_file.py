"""Write and read files in the safetensors format, one tensor at a time.

The format is 8 bytes of header length, a JSON header and the tensors' bytes
(https://github.com/huggingface/safetensors). The library of that name reads these files. Its writer refuses tensors
that share memory, as the pieces of ZeRO's flat buffers do, and needs all of them at once; its reader maps whole files,
whose pages then count as memory in use.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from mythos.config.base import ConfigError
from mythos.config.os_errors import explained, sentence

_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the library."""


class Entry(NamedTuple):
    """Data type, shape and offset of one tensor in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    """Offset of the first byte in the file."""


class Header(NamedTuple):
    """Parsed header of a file."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def write_tensors(
    path: Path,
    layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write one file and flush it to disk; memory holds one tensor at a time if ``read`` creates them one by one.

    Args:
        layout: dtype and shape of every tensor by key.
        read: returns the tensor of a key, on the CPU.
    """
    keys = sorted(layout, key=lambda key: (-layout[key][0].itemsize, key))  # wide types first, for alignment
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for key in keys:
        dtype, shape = layout[key]
        stop = offset + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            value = read(key)
            assert (value.dtype, tuple(value.shape)) == layout[key], f"{key} does not match the layout"
            file.write(_bytes(value.contiguous().flatten()))
            del value  # before the next one is created
        file.flush()
        os.fsync(file.fileno())


def read_header(path: Path) -> Header:
    """Read the header of a file, without the tensors.

    Raises:
        ConfigError: the file is missing, truncated or not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            num_bytes = int.from_bytes(file.read(8), "little")
            if num_bytes > _MAX_HEADER_BYTES:
                raise ValueError
            raw = json.loads(file.read(num_bytes))
        metadata = raw.pop("__metadata__", {})
        first = 8 + num_bytes
        entries = {}
        for key, item in raw.items():
            dtype, shape, (start, stop) = _DTYPES[item["dtype"]], tuple(item["shape"]), item["data_offsets"]
            if start < 0 or min(shape, default=0) < 0 or stop - start != math.prod(shape) * dtype.itemsize:
                raise ValueError
            entries[key] = Entry(dtype, shape, first + start)
        if first + max((item["data_offsets"][1] for item in raw.values()), default=0) != path.stat().st_size:
            raise ValueError
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path}: missing or damaged; it is not a complete safetensors file.") from None
    except OSError as error:
        raise ConfigError(f"{sentence(error, path)}.") from None
    return Header(entries, metadata)


def read_range(path: Path, entry: Entry, start: int, out_N: Tensor) -> None:
    """Fill ``out_N`` (contiguous, on the CPU, the entry's dtype) with the elements of one tensor from ``start`` on.

    Raises:
        ConfigError: the file was truncated or cannot be read.
    """
    assert out_N.dtype == entry.dtype
    if not out_N.numel():
        return
    with explained(path), path.open("rb", buffering=0) as file:
        file.seek(entry.offset + start * entry.dtype.itemsize)
        rest = _bytes(out_N)
        while rest:  # one call reads 2 GiB at most
            num_read = file.readinto(rest)
            if not num_read:
                raise ConfigError(f"{path}: truncated since it was opened.")
            rest = rest[num_read:]


def _bytes(value_N: Tensor) -> memoryview:
    """View of the memory of a flat contiguous tensor."""
    return value_N.view(torch.uint8).numpy().data
