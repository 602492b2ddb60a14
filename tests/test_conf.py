"""Every YAML under conf/ composes and validates, and the comment of every model states its counts."""

import math

import pytest
from omegaconf import OmegaConf

from mythos.account.flops import forward_flops, training_flops
from mythos.account.memory import state_bytes
from mythos.account.parameters import count_parameters
from mythos.cli.costs_tables import short, short_count
from mythos.config.base import ConfigError, decode
from mythos.config.load import default_config_dir, load
from mythos.config.model import ModelConfig
from mythos.config.optim import AdamWConfig
from mythos.config.parts import PARTS, LoopConfig
from mythos.config.run import RunConfig

CONF = default_config_dir()
OTHER_COMMANDS = {"corpus", "sweep"}
"""Folders that are not groups of a run; the tests of their commands read them."""
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in OTHER_COMMANDS)
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
MODELS = [option for group, option in OPTIONS if group == "model"]
NAMED_BY_SIZE = {
    **{"140m": 1.4e8, "370m": 3.7e8, "770m": 7.7e8, "1b": 1e9, "3b": 3e9},
    **{"10b": 1e10, "30b": 3e10, "100b": 1e11, "300b": 3e11, "1t": 1e12},
}
DEVICE_BYTES = 80e9


def read_model(name: str) -> tuple[ModelConfig, list[str]]:
    """Return a model and the lines of its first comment."""
    path = CONF / "model" / f"{name}.yaml"
    comment = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    return decode(ModelConfig, OmegaConf.to_container(OmegaConf.load(path))), comment


def test_train_yaml_alone_is_a_run():
    assert isinstance(load([]), RunConfig)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_validates(group, option):
    learns_exits = group == "halting" and option != "fixed"
    needs = ["depth.num_grad_loops=32"] if learns_exits else ["optim=adamw"] if group == "parallel" else []
    if option == "foreign":  # needs the name of an entry point
        needs.append(f"{group}.name=lion")
    run = load([f"{group}={option}", *needs])
    given = OmegaConf.load(CONF / group / f"{option}.yaml").get("kind")
    if given is not None:
        assert getattr(run, group).kind == given


@pytest.mark.parametrize("kind", PARTS)
def test_every_kind_of_loop_part_has_an_option_with_its_defaults(kind):
    assert load([f"model/loop={kind}"]).model.loop == LoopConfig(parts=(PARTS[kind].config(),))


def test_options_of_loop_parts_are_those_kinds():
    options = {path.stem for path in (CONF / "model" / "loop").glob("*.yaml")}
    assert options == {"none", *PARTS}
    assert load([]).model.loop == load(["model/loop=none"]).model.loop == LoopConfig()


def test_a_learned_exit_needs_gradients_in_every_loop():
    with pytest.raises(ConfigError, match=r"num_grad_loops is 4 of up to 32 .* set depth.num_grad_loops=32"):
        load(["halting=ponder"])


def test_every_group_is_a_field_of_the_run():
    assert set(GROUPS) - {"experiment"} <= set(RunConfig.__dataclass_fields__)


@pytest.mark.parametrize("name", MODELS)
def test_the_comment_of_a_model_states_its_counts(name):
    model, comment = read_model(name)
    counts, active = count_parameters(model), count_parameters(model, active=True)
    seq_len = model.max_seq_len
    num_bytes = state_bytes(model, AdamWConfig(lr=1e-3)).total
    num_devices = math.ceil(num_bytes / DEVICE_BYTES)
    devices = f": at least {num_devices} devices of 80 GB." if num_devices > 1 else "."
    forward, training = forward_flops(model, seq_len, 8), training_flops(model, seq_len, 8, 4)
    assert comment[-3:] == [
        f"{short_count(counts.total)} parameters, {short_count(active.total)} active.",
        f"FLOPs per token in sequences of {seq_len:,}: {short(forward.total)} forward at T=8, "
        f"{short(training.total)} training at T=8 and k=4.",
        f"Needs {short(num_bytes)}B for weights, gradients and AdamW moments in fp32{devices}",
    ]


@pytest.mark.parametrize(("name", "size"), NAMED_BY_SIZE.items())
def test_a_size_in_a_name_is_true_within_a_tenth(name, size):
    assert count_parameters(read_model(name)[0]).total == pytest.approx(size, rel=0.1)


def test_560m_a210m_is_named_after_its_counts():
    model, _ = read_model("560m-a210m")
    assert count_parameters(model).total == pytest.approx(560e6, rel=0.01)
    assert count_parameters(model, active=True).total == pytest.approx(210e6, rel=0.01)
