from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config import records
from mythos.report import draw
from mythos.report.compare import differences, final_validation, named, ranked
from mythos.report.figures import compare
from mythos.report.figures.sweep import axis_of, parallel_coordinates
from mythos.report.read import Run, Series, read_run

MakeRun = Callable[..., Path]


@pytest.fixture
def runs(make_run: MakeRun) -> dict[str, Run]:
    changes = {
        "a": ("optim.lr=0.01",),
        "b": ("optim.lr=0.03", "depth.mean=4"),
        "c": ("depth=lognormal_poisson", "optim.lr=0.01"),
    }
    return {name: read_run(make_run(*change, num_steps=200, name=name)) for name, change in changes.items()}


def test_differences_leave_out_what_is_equal_and_names(runs: dict[str, Run]) -> None:
    result = differences(runs)
    assert result["optim.lr"] == [0.01, 0.03, 0.01]
    assert result["depth.mean"] == [8.0, 4.0, 8.0]
    assert result["depth.kind"] == ["poisson", "poisson", "lognormal_poisson"]
    assert result["depth.sigma"][:2] == ["–", "–"]
    assert not any(path.startswith(("model.", "run.")) for path in result)


def test_runs_are_ranked_by_their_last_validation_at_their_mean_depth(runs: dict[str, Run]) -> None:
    assert final_validation(runs["b"]) == runs["b"].series[records.validation_loss(4)].values[-1]
    assert final_validation(runs["a"]) == runs["a"].series[records.validation_loss(8)].values[-1]
    runs["a"].series[records.validation_loss(8)].values[-1] = np.nan
    assert ranked(runs) == ["c", "b", "a"]


def test_runs_of_one_name_are_named_by_their_directories(runs: dict[str, Run]) -> None:
    paths = [Path("x/a"), Path("x/b"), Path("x/c")]
    assert list(named(list(runs.values()), paths)) == ["x/a", "x/b", "x/c"]


def test_a_run_has_one_colour_in_every_plot(runs: dict[str, Run]) -> None:
    del runs["a"].series[records.TRAIN_LOSS]
    training, validation = compare.losses(runs), compare.validations(runs)
    assert [trace.name for trace in training.data] == ["b", "c"]
    assert [trace.name for trace in validation.data] == ["a", "b", "c"]
    assert [trace.meta for trace in training.data] == [trace.meta for trace in validation.data[1:]]
    last = [trace.y[-1] for trace in validation.data]
    assert last == pytest.approx([final_validation(run) for run in runs.values()], rel=1e-6)


def test_steps_of_different_size_are_compared_by_tokens(runs: dict[str, Run]) -> None:
    assert compare.losses(runs).layout.xaxis.title.text == "optimiser step"
    runs["b"].series["tokens"].values[:] *= 2
    figure = compare.losses(runs)
    assert figure.layout.xaxis.title.text == "tokens"
    assert [trace.x[-1] for trace in figure.data] == [200 * 4096, 400 * 4096, 200 * 4096]


def test_loops_are_averaged_over_the_last_quarter(runs: dict[str, Run]) -> None:
    series = runs["a"].series[records.state_norm(0)]
    series.values[:] = np.arange(len(series.values))
    assert len(series.values) == 4
    assert compare.state_norms(runs).data[0].y[0] == 3.0


def test_each_line_of_a_sweep_goes_through_its_values(runs: dict[str, Run]) -> None:
    figure = parallel_coordinates(runs)
    labels = list(figure.layout.xaxis.ticktext)
    assert labels[-1] == "validation loss"
    at_lr = [trace.y[labels.index("optim.lr")] for trace in figure.data]
    assert at_lr == [0.0, 1.0, 0.0]
    losses = np.array([final_validation(run) for run in runs.values()])
    positions = (losses - losses.min()) / np.ptp(losses)
    np.testing.assert_allclose([trace.y[-1] for trace in figure.data], positions, atol=1e-6)
    runs["b"].series[records.validation_loss(4)].values[-1] = np.inf
    assert [trace.name for trace in parallel_coordinates(runs).data] == ["a", "c"]


def test_axes_are_logarithmic_over_a_wide_span_and_categories_are_in_order() -> None:
    assert axis_of("model.x", [1, 10, 100]) == ("x", [0, 0.5, 1], [(0, "1"), (0.5, "10"), (1, "100")])
    assert axis_of("x", [0.0, 5.0, 10.0]).positions == [0, 0.5, 1]
    words = axis_of("x", [True, None, "b"])
    assert words.ticks == [(0, "b"), (0.5, "null"), (1, "true")]
    assert words.positions == [1, 0.5, 0]
    assert axis_of("x", [3, 3]).positions == [0, 0]


def test_a_long_path_of_a_sweep_is_broken_after_its_dots_and_the_plot_is_wide_enough(make_run: MakeRun) -> None:
    changes = ((20, 0.01), (40, 0.02))
    runs = {
        f"{steps}": read_run(
            make_run(f"schedule.num_warmup_steps={steps}", f"optim.lr={lr}", num_steps=100, name=f"{steps}")
        )
        for steps, lr in changes
    }
    figure = parallel_coordinates(runs)
    assert set(figure.layout.xaxis.ticktext) == {"optim.lr", "schedule.<br>num_warmup_steps", "validation loss"}
    letters = len("num_warmup_steps") + len("validation loss") + len("  0.01") * 2
    assert figure.layout.meta["min_width"] >= 7 * letters


def test_a_single_step_has_one_tick(runs: dict[str, Run]) -> None:
    for run in runs.values():
        for name in (records.validation_loss(4), records.validation_loss(8)):
            run.series[name] = Series.of([80], [3.0])
    axis = compare.validations(runs).layout.xaxis
    assert (axis.dtick, axis.range) == (1, (79, 81))


@pytest.mark.parametrize(
    ("costs", "labels"),
    [
        ([4.08e12], ["4.08·10¹²"]),
        ([1e12, 9e12], ["10¹²", "2·10¹²", "3·10¹²", "5·10¹²"]),
        ([70.0, 90.0], ["70", "76.1", "82.8", "90"]),
        ([3.0, 40_000.0], ["10", "100", "1,000", "10,000"]),
    ],
)
def test_an_axis_of_costs_has_few_distinct_labels(costs: list[float], labels: list[str]) -> None:
    axis = draw.count_axis("FLOPs", [Series(np.array(costs), np.ones(len(costs)))])
    assert axis["ticktext"] == labels
    low, high = axis["range"]
    assert low < np.log10(min(costs)) <= np.log10(max(costs)) < high
