"""Conversion between this rank's slices and a checkpoint's fragments, for any layout on either side."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mythos.checkpoint.fragments import Fragment, FragmentReader, checksum
from mythos.config.base import ConfigError
from mythos.parallel.partition import Flat, Partition

WEIGHT = "weight"
STEP = "step"
"""The only state of an optimiser that is a scalar for a whole parameter."""


def fragments_of(partition: Partition, buffers: dict[str, Tensor]) -> Iterator[Fragment]:
    """Yield the weights and moments that this rank owns, on the device, without a copy; rank 0 also yields buffers."""
    for flat in partition.flats:
        if flat.is_owner:
            yield from _fragments_of(flat)
    if not dist.is_initialized() or dist.get_rank() == 0:
        for name, buffer in buffers.items():
            yield Fragment(name, WEIGHT, 0, buffer.detach().flatten())


def _fragments_of(flat: Flat) -> Iterator[Fragment]:
    vectors = {WEIGHT: flat.tensor.detach().flatten()}
    vectors |= {field: value.flatten() for field, value in flat.state.items() if field != STEP}
    for part in flat.slices:
        for field, vector_N in vectors.items():
            yield Fragment(part.name, field, part.start, vector_N[part.offset : part.offset + part.length])
        if STEP in flat.state and part.start == 0:
            yield Fragment(part.name, STEP, 0, flat.state[STEP].reshape(1))


@torch.no_grad()
def restore(partition: Partition, buffers: dict[str, Tensor], reader: FragmentReader) -> None:
    """Fill this rank's slices and all buffers from a checkpoint of any layout.

    Raises:
        ConfigError: the checkpoint lacks a tensor, or one has another shape.
    """
    for name, shape in partition.shapes.items():
        if name in reader.names and reader.shape(name) != shape:
            raise ConfigError(f"{name} is {reader.shape(name)} in the checkpoint, but {shape} in this model.")
    for flat in partition.flats:
        _fill(flat, partition.base_optimizer, reader)
    for name, buffer in buffers.items():
        buffer.copy_(reader.tensor(name))


def _fill(flat: Flat, optimizer: torch.optim.Optimizer, reader: FragmentReader) -> None:
    weight_N = flat.tensor.data.view(-1)
    for part in flat.slices:
        value_N = reader.read(part.name, WEIGHT, part.start, part.length)
        weight_N[part.offset : part.offset + part.length] = value_N.to(weight_N.device)
    fields = {field for part in flat.slices for field in reader.fields(part.name)} - {WEIGHT, STEP}
    state: dict[str, Tensor] = {}
    for field in sorted(fields):
        state[field] = torch.zeros_like(flat.tensor)
        for part in flat.slices:
            value_N = reader.read(part.name, field, part.start, part.length)
            state[field].view(-1)[part.offset : part.offset + part.length] = value_N.to(weight_N.device)
    steps = {reader.read(part.name, STEP).item() for part in flat.slices if STEP in reader.fields(part.name)}
    if len(steps) > 1:
        raise ConfigError(
            f"the checkpoint counts {sorted(steps)} optimiser steps for parameters that this layout updates together; "
            "resume with parallel=single or parallel=ddp."
        )
    if steps:
        state[STEP] = torch.tensor(steps.pop(), dtype=torch.float32, device=weight_N.device)
    if state:
        optimizer.state[flat.tensor] = state


def verify(partition: Partition, buffers: dict[str, Tensor], expected: dict[str, str]) -> None:
    """Compare checksums of everything in memory, over all ranks, with those of a checkpoint's manifest.

    Raises:
        ConfigError: an element is missing, misplaced or different; the message names its tensor.
    """
    keys = sorted(expected)
    index = {key: position for position, key in enumerate(keys)}
    sums = torch.zeros(len(keys), dtype=torch.int64)
    for fragment in fragments_of(partition, buffers):
        key = f"{fragment.name}|{fragment.field}"
        if key not in index:
            raise ConfigError(f"{key} is in memory after loading, but the checkpoint's manifest does not list it.")
        sums[index[key]] += signed(checksum(fragment.value_N.cpu(), fragment.start))
    if dist.is_initialized():
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        on_device = sums.to(device)
        dist.all_reduce(on_device)
        sums = on_device.cpu()
    for key, value in zip(keys, sums.tolist(), strict=True):
        if value != signed(int(expected[key], 16)):
            raise ConfigError(f"{key} differs from the checkpoint after loading (checksum); do not train from it.")


def signed(value: int) -> int:
    """Return a 64-bit number in two's complement, as in int64 tensors."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a model's persistent buffers, by name without ``model.``."""
    persistent = module.state_dict(keep_vars=True)
    return {
        name.removeprefix("model."): value for name, value in persistent.items() if not isinstance(value, nn.Parameter)
    }
