"""Norms of gradients and updates by parameter group, of whole parameters, with any sharding."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mythos.optim.groups import GroupOf
from mythos.parallel.partition import Partition, expert_groups

_MAX_SAMPLES = 2**16
"""Maximum number of evenly spaced elements of one slice from which an update norm is computed."""


def squared_norms(trainer: pl.Trainer, module: Any) -> dict[str, Tensor]:
    """Return the squared gradient norm of each parameter group that has gradients, fp32 scalars, equal on all ranks.

    Call when the gradients of the step are complete and not yet clipped.
    """
    optimizer: Any = trainer.strategy.optimizers[0]
    if hasattr(optimizer, "averaged_gradients"):
        return _of_shards(optimizer)
    gradients: defaultdict[str, list[Tensor]] = defaultdict(list)
    expert_parallel: dict[str, dist.ProcessGroup] = {}
    for name, parameter in module.model.named_parameters():
        if parameter.grad is not None:
            gradients[module.group_of(name)].append(parameter.grad)
            if (groups := expert_groups(parameter)) is not None:
                expert_parallel[module.group_of(name)] = groups[0]
    squares = {group: _sum_of_squares(parts) for group, parts in gradients.items()}
    for group, ranks in expert_parallel.items():
        dist.all_reduce(squares[group], group=ranks)
    return squares


def _of_shards(zero: Any) -> dict[str, Tensor]:
    """Compute the norms from ZeRO's slices of gradients. Before the last micro-batch of a step there may be none."""
    if hasattr(zero, "single_partition_of_fp32_groups"):
        flats, group_of = zero.single_partition_of_fp32_groups, range(len(zero.single_partition_of_fp32_groups))
    else:
        flats, group_of = zero.fp32_partitioned_groups_flat, zero.sub_group_to_group_id
    labels = [group["label"] for group in zero.optimizer.param_groups]
    slices: dict[str, list[Tensor]] = {label: [] for label in labels}
    for index, flat in enumerate(flats):
        averaged = zero.averaged_gradients.get(index)
        parts = [flat.grad] if averaged is None else averaged
        slices[labels[group_of[index]]] += [part for part in parts if part is not None]
    device = "cuda" if torch.cuda.is_available() and dist.get_backend() == "nccl" else "cpu"
    own = torch.stack([_sum_of_squares(slices[label]).to(device) for label in labels])
    dist.all_reduce(own)
    squares: dict[str, Tensor] = {}
    for label, square in zip(labels, own, strict=True):
        squares[label] = squares[label] + square if label in squares else square
    return squares


def sample_weights(partition: Partition, trained: Iterable[str], group_of: GroupOf) -> dict[str, list[Tensor]]:
    """Copy evenly spaced weights of this rank's slices of the ``trained`` parameters, by group.

    Each sample is scaled so that its sum of squares estimates that of the whole slice. A copy of all weights would
    need the memory of a second model.
    """
    names = set(trained)
    device = partition.flats[0].tensor.device
    # A rank may hold no weights of a group, but every rank takes part in every reduction.
    samples: dict[str, list[Tensor]] = {
        group: [torch.zeros(1, device=device)] for group in sorted(map(group_of, names))
    }
    for flat in partition.flats:
        vector_N = flat.tensor.detach().view(-1)
        for part in flat.slices:
            if flat.is_owner and part.name in names:
                stride = -(-part.length // _MAX_SAMPLES)
                stride += 1 - stride % 2  # an odd stride reaches every column of a matrix of even width
                sample = vector_N[part.offset : part.offset + part.length : stride].float()
                samples[group_of(part.name)].append(sample * (part.length / sample.numel()) ** 0.5)
    return samples


def update_squares(before: dict[str, list[Tensor]], after: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Return |w' - w|^2 and |w|^2 of each group, ``[2]``, from two samples of this rank's weights; sum over ranks."""
    return {
        group: torch.stack((_sum_of_squares(torch._foreach_sub(after[group], old)), _sum_of_squares(old)))
        for group, old in before.items()
    }


def trained_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters that are not frozen."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _sum_of_squares(parts: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack(torch._foreach_norm(parts)).float().square().sum() if parts else torch.zeros(())
