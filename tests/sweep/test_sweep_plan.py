"""Committed sweeps have their documented properties; plans are checked before anything starts, and frozen."""

import json
import shutil
from pathlib import Path

import pytest

from mythos.account.flops import loop_flops, training_flops
from mythos.account.parameters import count_parameters
from mythos.config.base import ConfigError
from mythos.config.expand import expand
from mythos.config.load import default_config_dir, load
from mythos.config.run import RunConfig
from mythos.sweep.plan import freeze, make

CONF = default_config_dir()
SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))
NUM_JOBS = {
    "lr-depth": 9,
    "experts-top-k": 9,
    "iso-parameter": 9,
    "iso-flop": 12,
    "search": 0,
    "looped-or-flat": 4,
    "looped-experts": 4,
    "looped-experts-small": 4,
    "random-depth-small": 2,
    "p-hop": 3,
    "loop-parts": 13,
}


def configs(name: str) -> dict[str, RunConfig]:
    """Every job of a committed sweep, composed and validated."""
    return {job.name: load(list(job.overrides)) for job in expand([f"sweep={name}"], CONF).jobs}


def run_flops(run: RunConfig) -> float:
    """Training FLOPs of a whole run, at the means of T and k."""
    flops = training_flops(run.model, run.data.seq_len, run.depth.mean, run.depth.grad_loops).total
    return flops * run.data.seq_len * run.data.batch_size * run.run.num_steps


@pytest.mark.parametrize("name", SWEEPS)
def test_every_committed_sweep_expands_and_validates(name: str) -> None:
    assert len(configs(name)) == NUM_JOBS[name]


def test_learning_rates_keep_their_ratio() -> None:
    runs = configs("lr-depth").values()
    assert {round(run.optim.muon_lr / run.optim.lr, 9) for run in runs} == {round(2e-2 / 6e-3, 9)}
    assert len({(run.optim.lr, run.depth.mean) for run in runs}) == 9


def test_cuts_of_the_experts_cost_the_same() -> None:
    runs = configs("experts-top-k").values()
    flops = [loop_flops(run.model, run.data.seq_len).total for run in runs]
    assert max(flops) / min(flops) < 1.02
    assert len({count_parameters(run.model).total for run in runs}) == 9


def test_arms_of_the_parameter_ladder_have_equal_parameters() -> None:
    runs = configs("iso-parameter")
    for width in (128, 192, 256):
        counts = [count_parameters(runs[f"{arm}-{width}"].model).total for arm in ("flat", "looped", "looped-moe")]
        assert max(counts) / min(counts) < 1.01
        assert (runs[f"flat-{width}"].depth.mean, runs[f"looped-{width}"].depth.mean) == (1, 8)
    assert len({run.run.num_steps for run in runs.values()}) == 1


def test_arms_of_the_flop_ladder_spend_their_budget() -> None:
    for name, run in configs("iso-flop").items():
        assert run_flops(run) == pytest.approx(float(name.rpartition("-")[2]), rel=0.01)


def test_twice_the_parameters_are_twice_as_many() -> None:
    runs = configs("looped-or-flat")
    counts = {arm: count_parameters(run.model).total for arm, run in runs.items()}
    assert counts["looped"] == counts["looped-fixed"] == counts["flat"]
    assert counts["flat-twice"] == pytest.approx(2 * counts["flat"], rel=0.005)
    assert len({run.run.num_steps for run in runs.values()}) == 1


def test_arms_on_documentation_are_the_same_but_for_their_data() -> None:
    jobs = expand(["sweep=looped-or-flat", "experiment=looped-23m-documentation"], CONF).jobs
    for mine, other in zip(
        (load(list(job.overrides)) for job in jobs), configs("looped-or-flat").values(), strict=True
    ):
        assert (mine.model, mine.depth, mine.optim) == (other.model, other.depth, other.optim)
        assert mine.data.dir == "data/documentation-8k"
        assert mine.run == other.run


@pytest.mark.parametrize("name", ["looped-experts", "looped-experts-small"])
def test_arms_with_experts_spend_equal_flops_on_equal_active_parameters(name: str) -> None:
    runs = configs(name)
    flops = [run_flops(run) for run in runs.values()]
    active = [count_parameters(run.model, active=True).total for run in runs.values()]
    assert max(flops) / min(flops) < 1.01
    assert max(active) / min(active) < 1.01


@pytest.fixture
def options(packed: Path, tmp_path: Path) -> list[str]:
    return ["model=debug", f"data.dir={packed}", f"run.dir={tmp_path / 'runs'}", "run.name=mine"]


def test_a_plan_has_its_directory_and_its_jobs(options: list[str], tmp_path: Path) -> None:
    plan = make([*options, "depth.mean=2,4"])
    assert plan.directory == tmp_path / "runs" / "mine"
    assert [(job.config.run.dir, job.config.run.name, job.config.resume) for job in plan.jobs] == [
        (str(plan.directory), "depth.mean-2", "auto"),
        (str(plan.directory), "depth.mean-4", "auto"),
    ]
    assert make([*options, "sweep.name=other", "depth.mean=2,4"]).directory.name == "other"
    assert not (tmp_path / "runs").exists()


def test_every_error_names_its_job_and_nothing_is_written(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make([*options, "depth.mean=2,40,50"])
    first, second = str(caught.value).splitlines()
    assert first.startswith("job depth.mean-40: depth: mean is 40 but max_loops is 32")
    assert second.startswith("job depth.mean-50: ")
    with pytest.raises(ConfigError, match=r"job depth.mean-2: model.vocab_size is 4096 but the tokenizer"):
        make([*options, "model.vocab_size=4096", "depth.mean=2,4"])
    with pytest.raises(ConfigError, match=r"cluster.num_nodes is 2, but a job of a sweep runs on one node"):
        make(
            [
                *options,
                "depth.mean=2,4",
                "cluster.num_nodes=2",
                "data.micro_batch_size=8",
                "optim=adamw",
                "parallel=ddp",
            ]
        )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("axis", "again"),
    [
        ("optim.lr=0.001,1e-3", "job-001: has the configuration of job job-000"),
        ("depth.mean=4,2,4.0", "depth.mean-4.0: has the configuration of job depth.mean-4"),
        ("run.seed=1,1", "job-001: has the configuration of job job-000"),
        ("run.validation.num_loops=[1,2],[1, 2]", "has the configuration of job"),
        ("sweep.jobs={a: ['depth.mean=4'], b: ['depth={mean: 4}']}", "b: has the configuration of job a"),
    ],
)
def test_two_jobs_of_one_configuration_are_refused(options: list[str], axis: str, again: str) -> None:
    with pytest.raises(ConfigError, match=again) as caught:
        make([*options, axis])
    assert str(caught.value).endswith(", so it trains the same; leave one of them out.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.dir='~/runs'", "^run.dir: '~/runs' was given, but ~ is not expanded here"),
        ("sweep.name='~'", "^sweep.name: '~' was given, but ~ is not expanded here"),
        ("sweep.name=..", "^sweep.name: '..' was given; give the name of a folder below run.dir"),
        (f"sweep.name={'x' * 256}", "^sweep.name: a name of 256 bytes was given"),
        ("run.name=1e3", "^run.name: a text is needed, but 1000.0 was given"),
        ("run.name=größe", "^run.name=größe: not understood; a text with such characters is quoted"),
        ("sweep.name=größe", "^sweep.name=größe: not understood; a text with such characters is quoted"),
    ],
)
def test_the_folder_of_a_sweep_is_checked(options: list[str], override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        make([*options, "depth.mean=2,4", override])
    assert "\n" not in str(caught.value)


def test_a_search_is_checked_at_the_ends_of_its_ranges(packed: Path, tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    options = ["sweep=search", f"data.dir={packed}", f"run.dir={tmp_path}", "model.vocab_size=512"]
    assert make(options, conf).jobs == ()
    with pytest.raises(ConfigError, match=r"job trial-with-depth.mean-12: depth: mean is 12 but max_loops is 10"):
        make([*options, "depth.max_loops=10"], conf)
    with pytest.raises(
        ConfigError,
        match=r"search.objective_num_loops is 3 but run.validation.num_loops is \[1, 2, 4, 8, 16\]",
    ):
        make([*options, "sweep.search.objective_num_loops=3"], conf)


def test_a_frozen_plan_refuses_another_and_lists_the_differences(options: list[str]) -> None:
    plan = make([*options, "depth.mean=2,4"])
    freeze(plan)
    frozen = json.loads((plan.directory / "sweep.json").read_text())
    assert [job["config"]["depth"]["mean"] for job in frozen["jobs"]] == [2, 4]
    freeze(make([*options, "depth.mean=2,4", "sweep.launcher.num_parallel=3"]))
    with pytest.raises(ConfigError) as caught:
        freeze(make([*options, "depth.mean=2,8", "run.seed=1"]))
    message = str(caught.value)
    assert "depth.mean-2: run.seed: 0 -> 1" in message
    assert "depth.mean-4: removed job" in message
    assert "depth.mean-8: new job" in message
    assert json.loads((plan.directory / "sweep.json").read_text()) == frozen


def test_a_search_may_be_given_more_trials_but_not_another_seed(packed: Path, tmp_path: Path) -> None:
    options = ["sweep=search", f"data.dir={packed}", f"run.dir={tmp_path}", "model.vocab_size=512"]
    freeze(make(options))
    freeze(make([*options, "sweep.search.num_trials=30"]))
    with pytest.raises(ConfigError, match=r"search.seed: 0 -> 1"):
        freeze(make([*options, "sweep.search.seed=1"]))
