"""Slices of parameters that this rank updates: one view of every engine's sharding.

An optimiser updates flat tensors of fp32 weights. On one device, and without ZeRO, each is a whole parameter; ZeRO 1
and 2 give a rank a slice of the concatenated parameters of a group; ZeRO 3 the concatenated slices of all parameters. A
``Slice`` maps elements of a whole parameter to their position in such a tensor.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Slice(NamedTuple):
    """Elements [start, start + length) of a flattened parameter, at [offset, offset + length) of a flat tensor."""

    name: str
    start: int
    offset: int
    length: int


class Flat(NamedTuple):
    """A tensor that the optimiser updates, and the slices in it; padding belongs to no slice."""

    tensor: Tensor
    state: dict[str, Any]
    """The optimiser's moments and step count of this tensor; empty before its first step."""
    slices: list[Slice]
    is_owner: bool
    """False if another rank holds the same elements and saves them."""


class Partition(NamedTuple):
    """All slices that this rank updates, and the shapes of the whole parameters."""

    flats: list[Flat]
    shapes: dict[str, tuple[int, ...]]
    base_optimizer: torch.optim.Optimizer
    """Optimiser whose ``state`` is keyed by the flat tensors."""


def partition_of(module: nn.Module, optimizer: Any) -> Partition:
    """Find this rank's slices.

    Args:
        module: module with the parameters; the prefix ``model.`` of their names is removed.
        optimizer: an optimiser of torch, or ZeRO's wrapper around it.
    """
    names = {parameter: name.removeprefix("model.") for name, parameter in module.named_parameters()}
    shapes = {name: _whole_shape(parameter) for parameter, name in names.items()}
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        return Partition(list(_zero_1_and_2(optimizer, names)), shapes, optimizer.optimizer)
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        return Partition(list(_zero_3(optimizer, names)), shapes, optimizer.optimizer)
    return Partition(list(_whole(optimizer, names)), shapes, optimizer)


def _whole(optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str]) -> Iterator[Flat]:
    """Return whole parameters, which every rank of a data-parallel group holds; the ranks own them round-robin."""
    for index, (parameter, name) in enumerate(names.items()):
        rank, size = _rank_among_replicas(parameter)
        part = Slice(name, _expert_start(parameter), 0, parameter.numel())
        yield Flat(parameter, optimizer.state.get(parameter, {}), [part], index % size == rank)


def _zero_1_and_2(zero: Any, names: dict[nn.Parameter, str]) -> Iterator[Flat]:
    for flat, group in zip(zero.single_partition_of_fp32_groups, zero.bit16_groups, strict=True):
        slices = []
        for parameter in group:
            if (mapping := parameter._hp_mapping) is not None:
                source, target = mapping.lp_fragment_address, mapping.hp_fragment_address
                start = _expert_start(parameter) + source.start
                slices.append(Slice(names[parameter], start, target.start, target.numel))
        yield Flat(flat, zero.optimizer.state.get(flat, {}), slices, True)


def _zero_3(zero: Any, names: dict[nn.Parameter, str]) -> Iterator[Flat]:
    for index, (flat, group) in enumerate(zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True)):
        slices = []
        for parameter in group:
            group_index, offset, padded_length = zero.grad_position[zero.get_param_id(parameter)]
            assert group_index == index
            start = padded_length * dist.get_rank(parameter.ds_process_group)
            length = min(padded_length, parameter.ds_numel - start)
            if length > 0:
                slices.append(Slice(names[parameter], _expert_start(parameter) + start, offset, length))
        yield Flat(flat, zero.optimizer.state.get(flat, {}), slices, True)


def _local_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Return the shape before ZeRO 3 partitions it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def expert_groups(parameter: nn.Parameter) -> tuple[dist.ProcessGroup, dist.ProcessGroup] | None:
    """Return the expert-parallel and the expert-data-parallel group of an expert's parameter; None for others."""
    if getattr(parameter, "allreduce", True):
        return None
    from deepspeed.utils import groups

    name = parameter.group_name  # type: ignore[attr-defined]
    return groups._get_expert_parallel_group(name), groups._get_expert_data_parallel_group(name)


def _whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Return the shape over all expert-parallel ranks."""
    shape, expert = _local_shape(parameter), expert_groups(parameter)
    return shape if expert is None else (shape[0] * dist.get_world_size(expert[0]), *shape[1:])


def _expert_start(parameter: nn.Parameter) -> int:
    """Return the number of elements of the whole parameter before this rank's experts."""
    expert = expert_groups(parameter)
    return 0 if expert is None else dist.get_rank(expert[0]) * torch.Size(_local_shape(parameter)).numel()


def _rank_among_replicas(parameter: nn.Parameter) -> tuple[int, int]:
    if not dist.is_initialized():
        return 0, 1
    expert = expert_groups(parameter)
    group = dist.group.WORLD if expert is None else expert[1]
    return dist.get_rank(group), dist.get_world_size(group)


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Gather a module's parameters for reading where ZeRO 3 has partitioned them; every rank must call it."""
    partitioned = [parameter for parameter in module.parameters() if hasattr(parameter, "ds_id")]
    if not partitioned:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(partitioned):
        yield
