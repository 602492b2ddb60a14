"""Expansion of a command line into the jobs of a sweep."""

import shutil
from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.config.expand import expand
from mythos.config.load import default_config_dir, load
from mythos.config.overrides import quoted

CONF = default_config_dir()


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """A copy of ``conf/`` with a sweep of two named jobs and a grid."""
    copy = Path(shutil.copytree(CONF, tmp_path / "conf"))
    (copy / "sweep" / "mine.yaml").write_text(
        "overrides: [model=debug, run.num_steps=50]\n"
        "jobs: {small: [model.dim=32], wide: [model.dim=64, run.num_steps=60]}\n"
        'grid: ["depth.mean=2,4"]\n'
    )
    return copy


def test_values_of_the_command_line_are_combined_in_order() -> None:
    result = expand(["model=debug", "depth.mean=2,4", "run.seed=range(0,3,2)"], CONF)
    assert [job.name for job in result.jobs] == [
        "depth.mean-2_run.seed-0",
        "depth.mean-2_run.seed-2",
        "depth.mean-4_run.seed-0",
        "depth.mean-4_run.seed-2",
    ]
    assert result.jobs[1].own == ("depth.mean=2", "run.seed=2")
    assert set(result.jobs[1].overrides) == {"model=debug", "depth.mean=2", "run.seed=2"}
    assert (result.name, result.shared) == (None, ("model=debug",))


def test_a_group_may_have_several_options_or_a_glob() -> None:
    assert [job.own for job in expand(["model=glob(debug*)"], CONF).jobs] == [
        ("model=debug",),
        ("model=debug-dense",),
        ("model=debug-mla",),
    ]
    lists = expand(["run.validation.num_loops=[1,2],[1,4]"], CONF).jobs
    assert [load(list(job.overrides)).run.validation.num_loops for job in lists] == [(1, 2), (1, 4)]


def test_named_jobs_are_combined_with_the_grid_and_override_what_is_shared(config_dir: Path) -> None:
    result = expand(["sweep=mine"], config_dir)
    assert result.name == "mine"
    runs = {job.name: load(list(job.overrides), config_dir) for job in result.jobs}
    assert {name: (run.model.dim, run.depth.mean, run.run.num_steps) for name, run in runs.items()} == {
        "small_depth.mean-2": (32, 2.0, 50),
        "small_depth.mean-4": (32, 4.0, 50),
        "wide_depth.mean-2": (64, 2.0, 60),
        "wide_depth.mean-4": (64, 4.0, 60),
    }


def test_the_command_line_overrides_the_file(config_dir: Path) -> None:
    result = expand(["sweep=mine", "depth.mean=3", "run.num_steps=40", "sweep.launcher.num_parallel=2"], config_dir)
    assert [job.name for job in result.jobs] == ["small", "wide"]
    runs = [load(list(job.overrides), config_dir) for job in result.jobs]
    assert [(run.depth.mean, run.run.num_steps) for run in runs] == [(3.0, 40), (3.0, 40)]
    assert result.config.launcher.num_parallel == 2
    several = expand(["sweep=mine", "depth.mean=3,5,6"], config_dir)
    assert len(several.jobs) == 6


def test_a_variant_is_removed_and_set_in_one_job(config_dir: Path) -> None:
    (config_dir / "sweep" / "mine.yaml").write_text(
        "jobs: {dense: [~model.core_ffn, 'model.core_ffn={kind: dense, hidden_dim: 96}'], moe: []}\n"
    )
    dense, moe = (load(list(job.overrides), config_dir) for job in expand(["sweep=mine"], config_dir).jobs)
    assert (dense.model.core_ffn.kind, dense.model.core_ffn.hidden_dim, moe.model.core_ffn.kind) == ("dense", 96, "moe")


def test_names_that_are_equal_or_long_become_numbers() -> None:
    assert [job.name for job in expand(["run.name=x", "optim.lr=1e-3,0.001"], CONF).jobs] == ["job-000", "job-001"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sweep=lr-deth"], "sweep: no file lr-deth.yaml in .*; did you mean 'lr-depth'?"),
        (["sweep=lr-depth", "sweep=search"], "sweep: 2 files were given, lr-depth, search; give one."),
        (["sweep.launcher.num_paralel=2"], r"sweep.launcher.num_paralel: no such key; did you mean 'num_parallel'?"),
        (["sweep.max_restarts=-1"], "sweep.max_restarts: input should be greater than or equal to 0, but -1"),
        (["optim.lr=interval(0,1)"], "optim.lr: .* is not a list of values; draw from a range with search"),
        (["run.name=a,b"], "run.name: the sweep sets this for each of its jobs"),
        (["resume=auto"], "resume: the sweep sets this for each of its jobs"),
        (["model=glob(x*)"], "model: .* matches nothing"),
        (["optim.lr=[1"], r"optim.lr=\[1: not understood"),
        (["sweep=search", "run.seed=1,2"], "search: the command line gives several values"),
        (["sweep=search", "sweep.grid=['depth.mean=1,2']"], "sweep.search is given and so are 1 entries"),
        (["sweep=search", "sweep.search.ranges={a: {kind: real, low: 0, high: 1, log: true}}"], "low is 0.* but log"),
    ],
)
def test_mistakes_give_one_sentence(arguments: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        expand(arguments, CONF)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    ["plain", "/a path/with 'quotes', = and \\", "null", "1e3", "[1,2]", r"a\b\\c", r"\'", "${run.name}", r"\${a}"],
)
def test_a_quoted_text_arrives_unchanged(value: str) -> None:
    assert load(["model=debug", quoted("run.dir", value)]).run.dir == value


def test_quoted_numbers_and_none_keep_their_kind() -> None:
    run = load(["model=debug", quoted("optim.lr", 1e-7), quoted("run.num_steps", 30), quoted("optim.clip_norm", None)])
    assert (run.optim.lr, run.run.num_steps, run.optim.clip_norm) == (1e-7, 30, None)
