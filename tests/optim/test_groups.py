"""The group and the rule of each parameter."""

import pytest
import torch

from mythos.config.load import default_config_dir, load
from mythos.config.optim import AdamWConfig, MuonAdamWConfig
from mythos.model.mythos import Mythos
from mythos.optim.groups import GROUP_OF_PATTERN, grouping, parameter_groups

HIDDEN_IN_BLOCK = [
    *(f"attention.{letter}_proj" for letter in "qkvo"),
    *(f"attention.{name}" for name in ("q_down", "q_up", "kv_down", "k_rope", "kv_up")),
    *(f"ffn.w{number}" for number in (1, 2, 3)),
    *(f"ffn.shared_experts.w{number}" for number in (1, 2, 3)),
]
OTHER_IN_BLOCK = [
    *("attention_norm", "ffn_norm", "attention_post_norm", "ffn_post_norm"),
    *(f"attention.{name}" for name in ("q_norm", "k_norm", "q_latent_norm", "kv_latent_norm")),
    "ffn.router.gate",
]
BLOCKS = ("prelude.0", "prelude.11", "core.blocks.1", "coda.0")
GROUP_OF_NAME = {
    **{f"{block}.{name}.weight": "hidden" for block in BLOCKS for name in HIDDEN_IN_BLOCK},
    **{f"{block}.{name}.weight": "other" for block in BLOCKS for name in OTHER_IN_BLOCK},
    **{f"{block}.ffn.experts.w{number}": "experts" for block in BLOCKS for number in (1, 2, 3)},
    **{f"core.injection.{name}": "other" for name in ("log_rate", "dt_bias", "input_matrix")},
    **{f"{name}.weight": "other" for name in ("embedding", "head.projection", "head.norm", "prelude_norm")},
    **{f"halting.gate.{name}": "other" for name in ("w1", "w2", "bias")},
}
ADAMW = AdamWConfig(lr=1e-3, weight_decay=0.1)
MODEL = load(["model=debug"]).model
MUON = MuonAdamWConfig(lr=3e-3, muon_lr=2e-2, weight_decay=0.01)


def test_every_parameter_is_in_the_group_that_it_belongs_to() -> None:
    assert {name: grouping(MODEL)(name) for name in GROUP_OF_NAME} == GROUP_OF_NAME


@pytest.mark.parametrize("size", [path.stem for path in (default_config_dir() / "model").glob("*.yaml")])
def test_muon_takes_every_matrix_of_a_real_model_but_embedding_head_router_and_injection(size: str) -> None:
    config = load([f"model={size}"]).model
    with torch.device("meta"):
        model = Mythos(config)
    kept = ("embedding.", "head.", "core.injection.")
    for name, parameter in model.named_parameters():
        is_hidden = parameter.ndim > 1 and not name.startswith(kept) and ".router." not in name
        expected = "other" if not is_hidden else "experts" if parameter.ndim == 3 else "hidden"
        assert grouping(config)(name) == expected, name


@pytest.mark.parametrize(
    "name", ["core.film.weight", "prelude.0.ffn.w4.weight", "core.blocks.0.ffn.experts.bias", "head.bias"]
)
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(AssertionError, match=rf"{name} matches no pattern"):
        grouping(MODEL)(name)


def test_every_pattern_is_used() -> None:
    for index in range(len(GROUP_OF_PATTERN)):
        shorter = GROUP_OF_PATTERN[:index] + GROUP_OF_PATTERN[index + 1 :]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mythos.optim.groups.GROUP_OF_PATTERN", shorter)
            with pytest.raises(AssertionError, match="matches no pattern"):
                list(map(grouping(MODEL), GROUP_OF_NAME))


@pytest.mark.parametrize(("config", "matrix_rule"), [(ADAMW, ("adamw", 1e-3, 0.1)), (MUON, ("muon", 2e-2, 0.01))])
def test_groups_hold_all_parameters_once_with_their_rule(config, matrix_rule) -> None:
    named = [(name, torch.nn.Parameter(torch.zeros(1))) for name in GROUP_OF_NAME]
    groups = parameter_groups(iter(named), config, grouping(MODEL))
    rules = {group["label"]: (group["algorithm"], group["lr"], group["weight_decay"]) for group in groups}
    assert rules == {"hidden": matrix_rule, "experts": matrix_rule, "other": ("adamw", config.lr, 0.0)}
    for group in groups:
        expected = [parameter for name, parameter in named if GROUP_OF_NAME[name] == group["label"]]
        assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in expected]


def test_a_dense_model_has_no_group_of_experts() -> None:
    named = [(f"{name}.weight", torch.zeros(1)) for name in ("embedding", "prelude.0.ffn.w1")]
    assert [group["label"] for group in parameter_groups(named, MUON, grouping(MODEL))] == ["hidden", "other"]
