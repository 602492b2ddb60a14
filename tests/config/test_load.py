"""Overrides on a command line, and the messages for mistaken ones."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mythos.config.base import ConfigError, difference, encode, fingerprint
from mythos.config.load import default_config_dir, load
from mythos.config.model import MLAConfig
from mythos.config.schema import decode_run, encode_run


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """A copy of ``conf/`` to write into."""
    return Path(shutil.copytree(default_config_dir(), tmp_path / "conf"))


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(["model=debug", "depth=poisson", *overrides])
    return str(caught.value)


def test_overrides_reach_the_frozen_configuration():
    run = load(["model=debug", "depth=fixed", "depth.num_loops=5", "run.validation.num_loops=[1,5]"])
    assert (run.model.dim, run.depth.mean, run.run.validation.num_loops) == (32, 5.0, (1, 5))


def test_a_default_that_no_yaml_mentions_can_be_overridden():
    assert load(["model=debug"]).model.head.soft_cap is None
    assert load(["model=debug", "model.head.soft_cap=30"]).model.head.soft_cap == 30.0
    assert load(["model=debug", "+model.norm_position=sandwich"]).model.norm_position == "sandwich"


def test_a_variant_is_replaced_by_removing_it_first():
    attention = "{kind: mla, num_heads: 2, kv_rank: 8, nope_head_dim: 8, rope_head_dim: 4, value_head_dim: 8}"
    run = load(["model=debug", "~model.attention", f"model.attention={attention}"])
    assert isinstance(run.model.attention, MLAConfig)
    assert run.model.head_dim == 12


def test_an_experiment_is_a_set_of_overrides_that_the_command_line_overrides(config_dir):
    (config_dir / "experiment").mkdir(exist_ok=True)
    (config_dir / "experiment" / "deep.yaml").write_text(
        "# @package _global_\n"
        "defaults: [{override /depth: fixed}, {override /model: debug}]\n"
        "depth: {num_loops: 3}\n"
        "model: {norm_position: sandwich}\n"
    )
    run = load(["experiment=deep"], config_dir)
    assert (run.model.dim, run.model.norm_position, run.depth.mean) == (32, "sandwich", 3.0)
    assert load(["experiment=deep", "depth.num_loops=5"], config_dir).depth.mean == 5.0


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("modle=debug", "modle: no such key; did you mean 'model'?"),
        ("model.dmi=3", "model.dmi: no such key; did you mean 'dim'?"),
        ("model.core_ffn.num_actve=2", "model.core_ffn.num_actve: no such key; did you mean 'num_active'?"),
        ("depth.num_loops=4", "depth.num_loops: no such key; did you mean 'num_grad_loops'?"),
        ("run.validation.evry=3", "run.validation.evry: no such key; did you mean 'every'?"),
        ("model.dim=abc", "model.dim: input should be a valid integer, but 'abc' was given."),
        ("~run.name", "run.name: a value is needed and none was given."),
        (
            "depth.kind=tide",
            "depth.kind: 'tide' was given; it is one of 'fixed', 'poisson', 'lognormal_poisson', 'uniform', 'choice'.",
        ),
        ("rubbish", "rubbish: not understood; an override is written key=value."),
    ],
)
def test_a_mistaken_override_gets_one_sentence(override, expected):
    assert message(override) == expected


def test_a_misspelt_option_lists_or_suggests_the_files():
    assert message("model=debgu").startswith("model: no file debgu.yaml in ")
    assert message("model=debgu").endswith("; did you mean 'debug'?")
    assert "known here: cosine, trapezoid" in message("schedule=zigzag")


@pytest.mark.parametrize(
    ("overrides", "path", "numbers"),
    [
        (
            ["model.dim=40", "model.attention.num_heads=3", "model.attention.num_kv_heads=3"],
            "model: dim",
            "40 3",
        ),
        (["model.dim=36", "model.attention.num_heads=2"], "model: dim", "36 grouped"),
        (["model.attention.num_kv_heads=3"], "model.attention: num_heads", "2 3"),
        (["model.attention.head_dim=7"], "model.attention: head_dim", "7"),
        (["model.core_ffn.num_active=9"], "model.core_ffn: num_active", "9 4"),
        (["model.core_ffn.hidden_dim=12"], "model.core_ffn: hidden_dim", "12 8"),
        (["depth=fixed", "depth.num_grad_loops=9"], "depth: num_grad_loops", "9 8"),
        (["depth.num_grad_loops=40"], "depth: num_grad_loops", "40 32"),
        (["depth.mean=50", "depth.num_grad_loops=4"], "depth: mean", "50 32"),
        (["data.batch_size=10", "data.micro_batch_size=4"], "data: batch_size", "10 4"),
        (["data.seq_len=512"], "data.seq_len", "512 256"),
        (["schedule.num_warmup_steps=30", "run.num_steps=20"], "schedule.num_warmup_steps", "30 20"),
    ],
)
def test_contradicting_fields_are_named_with_their_values(overrides, path, numbers):
    sentence = message(*overrides)
    assert sentence.startswith(path)
    assert all(number in sentence for number in numbers.split())
    assert sentence.count("\n") == 0
    assert sentence.endswith(".")


def test_a_folder_without_train_yaml_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^--config-dir: .* holds no train\.yaml; point it at a folder"):
        load([], tmp_path)


def test_round_trip_through_the_run_directory(tmp_path):
    run = load(["model=debug-mla", "depth.mean=4"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(encode_run(run)))
    restored = decode_run(json.loads(path.read_text()), str(path))
    assert restored == run
    assert fingerprint(restored) == fingerprint(run)
    assert difference(encode(run), encode(restored)) == []
    changed = encode(load(["model=debug-mla", "depth.mean=6"]))
    assert difference(encode(run), changed) == ["depth.mean: 4.0 -> 6.0"]


@pytest.mark.parametrize("module", ["mythos", "mythos.config.load", "mythos.config.records"])
def test_configuration_imports_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_compiling_grouped_products_needs_bf16():
    with pytest.raises(ConfigError, match=r"parallel.compile is true with parallel.precision=fp32"):
        load(["model=debug", "parallel.compile=true"])
    load(["model=debug", "parallel.compile=true", "parallel.precision=bf16"])


@pytest.mark.parametrize(
    ("overrides", "dropped"),
    [
        (
            ["experiment=quickstart", "depth=fixed"],
            {"depth.mean=8": "depth=fixed", "depth.max_loops=24": "depth=fixed"},
        ),
        (["experiment=quickstart", "depth=uniform"], {"depth.mean=8": "depth=uniform"}),
        (["optim=adamw", "experiment=quickstart"], {"optim.muon_lr=0.02": "optim=adamw"}),
        (["experiment=looped-23m", "model=debug-mla"], {"model.attention.num_kv_heads=4": "model=debug-mla"}),
        (["experiment=looped-23m-documentation", "optim=adamw"], {"optim.muon_lr=0.02": "optim=adamw"}),
        (["experiment=looped-23m", "depth=fixed", "tracking=tensorboard"], {}),
        (["experiment=quickstart", "depth=poisson", "optim=muon_adamw"], {}),
        (["experiment=quickstart", "depth=fixed", "~depth.mean", "~depth.max_loops"], None),
    ],
)
def test_another_variant_drops_the_keys_that_the_experiment_sets_for_the_first(overrides, dropped, capsys):
    run = load(overrides)
    lines = capsys.readouterr().err.splitlines()
    if dropped is not None:
        experiment = next(override for override in overrides if override.startswith("experiment="))
        assert lines == [
            f"mythos: {chosen} has no {key.partition('=')[0]}; {key} of {experiment} is dropped."
            for key, chosen in dropped.items()
        ]
    assert all(
        getattr(run, key).kind == option
        for key, option in (override.split("=") for override in overrides if "=" in override)
        if key in ("depth", "optim", "tracking")
    )


def test_keys_that_both_variants_have_stay():
    run = load(["experiment=looped-23m", "depth=fixed", "optim=adamw", "tracking=tensorboard", "parallel=zero1"])
    assert (run.depth.num_grad_loops, run.optim.lr, run.tracking.log_every) == (4, 3e-3, 10)
    assert (run.parallel.precision, run.parallel.compile) == ("bf16", True)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["experiment=quickstart", "depth=fixed", "depth.mean=4"], "depth.mean: no such key"),
        (["experiment=quickstart", "depth.mean=4", "depth=fixed"], "depth.mean: no such key"),
        (["model=debug", "depth=fixed", "depth.mean=4"], "depth.mean: no such key"),
        (["experiment=quickstart", "optim=adamw", "optim.muon_lr=0.1"], "optim.muon_lr: no such key"),
    ],
)
def test_keys_of_the_command_line_are_never_dropped(overrides, expected):
    with pytest.raises(ConfigError, match=f"^{expected}"):
        load(overrides)


def test_a_misspelt_key_of_an_experiment_is_not_dropped(config_dir):
    (config_dir / "experiment" / "wrong.yaml").write_text("# @package _global_\ndepth: {maen: 3, mean: 3}\n")
    with pytest.raises(ConfigError, match=r"^depth.maen: no such key"):
        load(["experiment=wrong", "depth=fixed"], config_dir)
