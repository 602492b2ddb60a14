"""From this rank's pieces to a checkpoint's fragments and back, whatever the layout on either side."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mythos.checkpoint.fragments import Fragment, FragmentReader, checksum
from mythos.config.base import ConfigError
from mythos.parallel.partition import Flat, Partition

WEIGHT = "weight"
STEP = "step"
"""The only state of an optimiser that is one number for a whole parameter."""


def fragments_of(partition: Partition, buffers: dict[str, Tensor]) -> Iterator[Fragment]:
    """Weights and moments that this rank answers for; on the device, without a copy. Buffers are rank 0's."""
    for flat in partition.flats:
        if flat.is_owner:
            yield from _fragments_of(flat)
    if not dist.is_initialized() or dist.get_rank() == 0:
        for name, buffer in buffers.items():
            yield Fragment(name, WEIGHT, 0, buffer.detach().flatten())


def _fragments_of(flat: Flat) -> Iterator[Fragment]:
    vectors = {WEIGHT: flat.tensor.detach().flatten()}
    vectors |= {field: value.flatten() for field, value in flat.state.items() if field != STEP}
    for place in flat.places:
        for field, vector_N in vectors.items():
            yield Fragment(place.name, field, place.start, vector_N[place.offset : place.offset + place.length])
        if STEP in flat.state and place.start == 0:
            yield Fragment(place.name, STEP, 0, flat.state[STEP].reshape(1))


@torch.no_grad()
def restore(partition: Partition, buffers: dict[str, Tensor], reader: FragmentReader) -> None:
    """Fill this rank's pieces, and every buffer, from a checkpoint of any layout.

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
    for place in flat.places:
        weight_N[place.offset : place.offset + place.length] = reader.read(
            place.name, WEIGHT, place.start, place.length
        ).to(weight_N.device)
    fields = {field for place in flat.places for field in reader.fields(place.name)} - {WEIGHT, STEP}
    state: dict[str, Tensor] = {}
    for field in sorted(fields):
        state[field] = torch.zeros_like(flat.tensor)
        for place in flat.places:
            value_N = reader.read(place.name, field, place.start, place.length)
            state[field].view(-1)[place.offset : place.offset + place.length] = value_N.to(weight_N.device)
    steps = {reader.read(place.name, STEP).item() for place in flat.places if STEP in reader.fields(place.name)}
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
    """Hold checksums of everything in memory, over all ranks, against those of a checkpoint's manifest.

    Raises:
        ConfigError: an element was lost, misplaced or altered on the way; the message names its tensor.
    """
    keys = sorted(expected)
    index = {key: place for place, key in enumerate(keys)}
    sums = torch.zeros(len(keys), dtype=torch.int64)
    for fragment in fragments_of(partition, buffers):
        key = f"{fragment.name}|{fragment.field}"
        if key not in index:
            raise ConfigError(f"{key} is in memory after loading, but the checkpoint's manifest does not know it.")
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
    """A 64-bit number in two's complement, as int64 tensors hold it."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    """What a model keeps beside its parameters, by name without ``model.``."""
    persistent = module.state_dict(keep_vars=True)
    return {
        name.removeprefix("model."): value for name, value in persistent.items() if not isinstance(value, nn.Parameter)
    }
