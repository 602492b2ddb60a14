"""Parameter groups, which a parameter's name decides."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from mythos.config.model import ModelConfig
from mythos.config.optim import AdamWConfig, ForeignOptimConfig, MuonAdamWConfig, OptimConfig
from mythos.config.part_spec import GroupName
from mythos.config.parts import optimizer_groups

GroupOf = Callable[[str], GroupName]
"""Function from a parameter's name to its group."""

GROUP_OF_PATTERN: tuple[tuple[str, GroupName], ...] = (
    ("embedding.weight", "other"),
    ("head.projection.weight", "other"),
    ("*norm.weight", "other"),
    ("halting.gate.*", "other"),
    ("*.ffn.router.gate.weight", "other"),
    ("*.ffn.experts.w[123]", "experts"),
    ("*.ffn.shared_experts.w[123].weight", "hidden"),
    ("*.ffn.w[123].weight", "hidden"),
    ("*.attention.*.weight", "hidden"),
)
"""Pattern of a parameter's name, and its group; the first match decides.

``hidden`` holds matrices between hidden activations, ``experts`` the stacks [E, F, D] and [E, D, F] of routed
experts, alone because expert parallelism shards them differently, ``other`` what is not a hidden matrix or
has a meaningful scale: embedding, head, norms, router gate. The injection and the loop parts state theirs
in ``config.part_spec``.
"""


def grouping(model: ModelConfig) -> GroupOf:
    """Return the group of each parameter of a model, by name."""
    table = (*optimizer_groups(model), *GROUP_OF_PATTERN)

    def group_of(parameter_name: str) -> GroupName:
        for pattern, group in table:
            if fnmatchcase(parameter_name, pattern):
                return group
        raise AssertionError(f"{parameter_name} matches no pattern of GROUP_OF_PATTERN; add one.")

    return group_of


def parameter_groups(
    named_parameters: Iterable[tuple[str, Tensor]], config: OptimConfig, group_of: GroupOf
) -> list[dict[str, Any]]:
    """Return parameter groups for ``torch.optim``: hidden, experts, other, in that order, without empty ones.

    Each group holds params, label, algorithm (``adamw``, ``muon`` or ``foreign``), lr and weight_decay. Within a group
    the parameters keep the order of ``named_parameters``.
    """
    other_rule = {"algorithm": "adamw", "lr": config.lr, "weight_decay": 0.0}
    match config:
        case AdamWConfig():
            matrix_rule = {"algorithm": "adamw", "lr": config.lr, "weight_decay": config.weight_decay}
        case MuonAdamWConfig():
            matrix_rule = {"algorithm": "muon", "lr": config.muon_lr, "weight_decay": config.weight_decay}
        case ForeignOptimConfig():
            matrix_rule = {"algorithm": "foreign", "lr": config.lr, "weight_decay": config.weight_decay}
            other_rule["algorithm"] = "foreign"
    groups: dict[GroupName, dict[str, Any]] = {
        "hidden": {"params": [], "label": "hidden", **matrix_rule},
        "experts": {"params": [], "label": "experts", **matrix_rule},
        "other": {"params": [], "label": "other", **other_rule},
    }
    for name, parameter in named_parameters:
        groups[group_of(name)]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
