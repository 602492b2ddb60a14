"""Every recipe composes, has what its size needs, and fits its devices; large toys are named the recipe."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from mythos.account.parameters import count_parameters
from mythos.account.peak import named_device
from mythos.account.plan import plan
from mythos.account.recipes import largest_recipe_that_fits, toy_settings
from mythos.cli.plan_tables import recipes_table, tokens_of
from mythos.config.base import ConfigError
from mythos.config.load import default_config_dir, load
from mythos.config.recipes import RECIPES, Recipe, nearest_recipe
from mythos.config.run import RunConfig
from mythos.config.schedule import warmup_steps

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
BY_NAME = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
TOY = ["model=370m", "data.seq_len=2048", "data.batch_size=64", "parallel.precision=bf16"]


@cache
def run_of(name: str) -> RunConfig:
    return load([f"experiment={name}"])


def test_the_table_holds_every_recipe_of_conf() -> None:
    names = {path.stem for path in (default_config_dir() / "experiment").glob("*-tokens.yaml")}
    assert {recipe.name for recipe in RECIPES} == names
    sizes = [recipe.num_parameters for recipe in RECIPES]
    assert sizes == sorted(sizes)


@BY_NAME
def test_a_recipe_has_the_settings_of_its_size(recipe: Recipe) -> None:
    run = run_of(recipe.name)
    num_parameters = count_parameters(run.model).total
    assert recipe.num_parameters == pytest.approx(num_parameters, rel=0.005)
    assert recipe.is_moe == run.model.is_moe
    assert run.run.name == recipe.name
    assert 20 <= tokens_of(run) / num_parameters < 20.5
    assert f"-{tokens_of(run) / 1e9:.0f}b-tokens" in recipe.name
    assert run.data.seq_len == run.model.max_seq_len
    assert run.data.batch_size * run.data.seq_len >= 2**19
    assert warmup_steps(run.schedule, run.run.num_steps) == min(2000, run.run.num_steps // 10)
    assert (run.parallel.precision, run.parallel.compile, run.parallel.remat) == ("bf16", True, "auto")
    assert (run.depth.mean, run.depth.grad_loops, run.data.max_epochs) == (8, 4, 1)
    assert toy_settings(run, is_gpu=True) is None


@BY_NAME
def test_learning_rates_follow_the_stated_rules(recipe: Recipe) -> None:
    run = run_of(recipe.name)
    if recipe.is_moe:
        assert run.optim.kind == "adamw"
        assert run.optim.lr == pytest.approx(1e-3 * 1024 / run.model.dim, rel=0.03)
    else:
        assert run.optim.kind == "muon_adamw"
        assert run.optim.muon_lr == 2e-2
        assert run.optim.lr == pytest.approx(3e-3 * (512 / run.model.dim) ** 0.5, rel=0.03)


@BY_NAME
@pytest.mark.parametrize("device", ["H100", "H200", "B200"])
def test_a_recipe_fits_its_devices(recipe: Recipe, device: str) -> None:
    assert plan(run_of(recipe.name), device).fits


@pytest.mark.parametrize(
    "words",
    [
        "experiment=370m-7b-tokens parallel=ddp cluster.num_devices=8",
        "experiment=560m-a210m-11b-tokens parallel=zero1 cluster.num_devices=8",
    ],
)
def test_recipes_of_one_device_fit_a_node(words: str) -> None:
    alone = plan(load(words.split()[:1]), "H100")
    node = plan(load(words.split()), "H100")
    assert node.fits
    assert 7 < node.tokens_per_second / alone.tokens_per_second < 8


def test_the_page_shows_the_table_that_plan_prints() -> None:
    for device in ("H100", "H200"):
        assert recipes_table(named_device(device)) in PAGE.read_text()


def test_a_recipe_is_shortened_with_its_warm_up() -> None:
    run = load(["experiment=140m-3b-tokens", "run.num_steps=200"])
    assert warmup_steps(run.schedule, 200) == 60
    with pytest.raises(ConfigError, match=r"schedule.num_warmup_steps is 560 but run.num_steps is 200"):
        load(["experiment=140m-3b-tokens", "run.num_steps=200", "schedule.num_warmup_steps=560"])


def test_the_nearest_recipe_is_of_the_same_kind() -> None:
    assert nearest_recipe(120_000_000, False).name == "140m-3b-tokens"
    assert nearest_recipe(760_000_000, False).name == "1b-20b-tokens"
    assert nearest_recipe(120_000_000, True).name == "560m-a210m-11b-tokens"
    assert nearest_recipe(10**12, True).name == "10b-204b-tokens"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (["data.seq_len=256"], "windows of 256 tokens (data.seq_len), 16,384 tokens a step (data.batch_size)"),
        (["data.batch_size=16", "data.seq_len=1024"], "16,384 tokens a step (data.batch_size)"),
        (["parallel.precision=fp32"], "fp32 on a GPU (parallel.precision)"),
    ],
)
def test_toy_settings_of_a_large_model_name_the_recipe(changes: list[str], found: str) -> None:
    assert toy_settings(load([*TOY, *changes]), is_gpu=True) == (
        f"a model of 365M parameters trains with {found}; experiment=370m-7b-tokens has settings for such a model."
    )


def test_settings_that_suit_the_model_or_device_get_no_advice() -> None:
    assert toy_settings(load(TOY), is_gpu=True) is None
    assert toy_settings(load([*TOY, "parallel.precision=fp32"]), is_gpu=False) is None
    assert toy_settings(load(["model=quickstart"]), is_gpu=True) is None
    assert toy_settings(load(["experiment=looped-23m", "parallel.precision=fp32"]), is_gpu=True) is None


def test_the_largest_recipe_that_fits() -> None:
    one, gib = load(["model=debug"]), 2**30
    assert largest_recipe_that_fits(one, 79 * gib, True) == "560m-a210m-11b-tokens"
    assert largest_recipe_that_fits(one, 22 * gib, True) == "370m-7b-tokens"
    assert largest_recipe_that_fits(one, 20 * gib, True) == "140m-3b-tokens"
    node = replace(one, data=replace(one.data, batch_size=64, micro_batch_size=1))
    node = replace(node, cluster=replace(node.cluster, num_devices=8), parallel=load(["parallel=ddp"]).parallel)
    assert largest_recipe_that_fits(node, 79 * gib, True) == "3b-59b-tokens"
