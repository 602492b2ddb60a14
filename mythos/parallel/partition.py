"""Which piece of which parameter this rank updates: one view over every engine's way of sharding.

An optimiser updates flat tensors of fp32 weights. On one device, and without ZeRO, each is a whole parameter; ZeRO 1
and 2 give a rank a slice of all parameters of a group laid end to end; ZeRO 3 a slice of each parameter, laid end to
end. A ``Place`` says which elements of which whole parameter lie where in such a tensor.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Place(NamedTuple):
    """Elements [start, start + length) of a flattened parameter, at [offset, offset + length) of a flat tensor."""

    name: str
    start: int
    offset: int
    length: int


class Flat(NamedTuple):
    """A tensor that the optimiser updates, and what lies in it; padding belongs to no place."""

    tensor: Tensor
    state: dict[str, Any]
    """The optimiser's moments and step count of this tensor; empty before its first step."""
    places: list[Place]
    is_owner: bool
    """False where another rank holds the same elements and answers for them."""


class Partition(NamedTuple):
    """Everything that this rank updates, and the shapes of the whole parameters."""

    flats: list[Flat]
    shapes: dict[str, tuple[int, ...]]
    base_optimizer: torch.optim.Optimizer
    """The one whose ``state`` is keyed by the flat tensors."""


def partition_of(module: nn.Module, optimizer: Any) -> Partition:
    """Find this rank's pieces.

    Args:
        module: holds the parameters, under names that start with ``model.``, which is left out.
        optimizer: torch's own, or ZeRO's around it.
    """
    names = {parameter: name.removeprefix("model.") for name, parameter in module.named_parameters()}
    shapes = {name: _whole_shape(parameter) for parameter, name in names.items()}
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        return Partition(list(_zero_1_and_2(optimizer, names)), shapes, optimizer.optimizer)
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        return Partition(list(_zero_3(optimizer, names)), shapes, optimizer.optimizer)
    return Partition(list(_whole(optimizer, names)), shapes, optimizer)


def _whole(optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str]) -> Iterator[Flat]:
    """Every rank of a parameter's data-parallel group holds all of it; they answer for parameters in turn."""
    for index, (parameter, name) in enumerate(names.items()):
        rank, size = _place_among_replicas(parameter)
        place = Place(name, _expert_start(parameter), 0, parameter.numel())
        yield Flat(parameter, optimizer.state.get(parameter, {}), [place], index % size == rank)


def _zero_1_and_2(zero: Any, names: dict[nn.Parameter, str]) -> Iterator[Flat]:
    for flat, group in zip(zero.single_partition_of_fp32_groups, zero.bit16_groups, strict=True):
        places = []
        for parameter in group:
            if (mapping := parameter._hp_mapping) is not None:
                source, target = mapping.lp_fragment_address, mapping.hp_fragment_address
                start = _expert_start(parameter) + source.start
                places.append(Place(names[parameter], start, target.start, target.numel))
        yield Flat(flat, zero.optimizer.state.get(flat, {}), places, True)


def _zero_3(zero: Any, names: dict[nn.Parameter, str]) -> Iterator[Flat]:
    for index, (flat, group) in enumerate(zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True)):
        places = []
        for parameter in group:
            group_index, offset, padded_length = zero.grad_position[zero.get_param_id(parameter)]
            assert group_index == index
            start = padded_length * dist.get_rank(parameter.ds_process_group)
            length = min(padded_length, parameter.ds_numel - start)
            if length > 0:
                places.append(Place(names[parameter], _expert_start(parameter) + start, offset, length))
        yield Flat(flat, zero.optimizer.state.get(flat, {}), places, True)


def _local_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape before ZeRO 3 cut it into slices."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def expert_groups(parameter: nn.Parameter) -> tuple[dist.ProcessGroup, dist.ProcessGroup] | None:
    """The ranks that share one set of experts, and those that hold the same ones, of an expert's parameter."""
    if getattr(parameter, "allreduce", True):
        return None
    from deepspeed.utils import groups

    name = parameter.group_name  # type: ignore[attr-defined]
    return groups._get_expert_parallel_group(name), groups._get_expert_data_parallel_group(name)


def _whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape over all expert-parallel ranks."""
    shape, expert = _local_shape(parameter), expert_groups(parameter)
    return shape if expert is None else (shape[0] * dist.get_world_size(expert[0]), *shape[1:])


def _expert_start(parameter: nn.Parameter) -> int:
    """Elements of the whole parameter that come before this rank's experts."""
    expert = expert_groups(parameter)
    return 0 if expert is None else dist.get_rank(expert[0]) * torch.Size(_local_shape(parameter)).numel()


def _place_among_replicas(parameter: nn.Parameter) -> tuple[int, int]:
    if not dist.is_initialized():
        return 0, 1
    expert = expert_groups(parameter)
    group = dist.group.WORLD if expert is None else expert[1]
    return dist.get_rank(group), dist.get_world_size(group)


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Bring a module's parameters together for reading, where ZeRO 3 has cut them up; every rank calls it."""
    cut = [parameter for parameter in module.parameters() if hasattr(parameter, "ds_id")]
    if not cut:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(cut):
        yield
