from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config import records
from mythos.report.compare import differences, final_validation, named, ranked
from mythos.report.figures import compare
from mythos.report.figures.sweep import axis_of, parallel_coordinates
from mythos.report.read import Run, read_run

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
