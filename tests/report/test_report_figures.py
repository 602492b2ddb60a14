from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config import records
from mythos.report.figures import loss, state
from mythos.report.read import Run, by_index, read_run
from mythos.report.theme import DARK, LIGHT, mix

MakeRun = Callable[..., Path]
ALL = (
    loss.loss,
    loss.loss_by_num_loops,
    loss.loss_over_num_loops,
    state.state_norms,
    state.state_norm_profile,
)


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    return read_run(make_run())


def only(run: Run, *prefixes: str) -> Run:
    return run._replace(series={name: run.series[name] for name in run.series if name.startswith(prefixes)})


def test_the_loss_plot_ends_at_the_last_values(run: Run) -> None:
    raw, smoothed, validation = loss.loss(run).data
    train = run.series[records.TRAIN_LOSS].values
    assert raw.x[-1] == validation.x[-1] == 2000
    assert raw.y[-1] == pytest.approx(train[-1], rel=1e-6)
    assert smoothed.y[-1] == pytest.approx(train[-5:].mean(), rel=1e-6)
    assert validation.name == "validation at T = 8"
    assert validation.y[-1] == pytest.approx(run.series[records.validation_loss(8)].values[-1], rel=1e-6)


def test_each_number_of_loops_is_a_line_and_a_point_of_the_last_validation(run: Run) -> None:
    losses = by_index(run.series, records.validation_loss)
    lines = loss.loss_by_num_loops(run).data
    assert [line.name for line in lines] == ["T = 1", "T = 2", "T = 4", "T = 8", "T = 12"]
    _, *points = loss.loss_over_num_loops(run).data
    last = [series.values[-1] for series in losses.values()]
    assert [point.x[0] for point in points] == list(losses)
    np.testing.assert_allclose([point.y[0] for point in points], last, rtol=1e-6)
    assert [point.meta for point in points] == [line.meta for line in lines]


def test_the_last_validation_is_drawn_with_the_saturation_fit_of_its_losses(run: Run) -> None:
    """The fixture's losses are a constant plus 0.26 exp(-0.42 T) times ``learned``; the mean depth is 8."""
    fitted = loss.saturation(run)
    learned = 1 - np.exp(-2000 / 300)
    assert fitted.amplitude == pytest.approx(0.26 * learned, rel=1e-4)
    assert fitted.rate == pytest.approx(0.42 * 8, rel=1e-4)
    assert fitted.floor == pytest.approx(2.31 + 5.3 / (1 + 2000 / 9) ** 0.72 + 0.055 * learned, rel=1e-6)
    curve = loss.loss_over_num_loops(run).data[0]
    assert curve.name == f"{fitted.floor:.3f} + {fitted.amplitude:.3f} exp(−3.36 T / 8), error {fitted.error:.1g}"
    np.testing.assert_allclose(curve.y[[0, -1]], [run.series["val/loss/T01"].values[-1], fitted.at(12)], rtol=1e-5)


def test_few_loop_counts_are_joined_by_a_plain_line(make_run: MakeRun) -> None:
    run = read_run(make_run(num_steps=200, validated=(1, 4, 8)))
    line = loss.loss_over_num_loops(run).data[0]
    assert line.x.tolist() == [1, 4, 8]
    assert not line.showlegend


def test_many_loop_counts_have_a_short_legend(make_run: MakeRun) -> None:
    run = read_run(make_run(num_steps=200, validated=(1, 2, 3, 4, 5, 6, 7, 8, 12, 16)))
    lines = loss.loss_by_num_loops(run).data
    assert [line.name for line in lines if line.showlegend] == ["T = 1", "T = 2", "T = 4", "T = 8", "T = 16"]


def test_the_heatmap_holds_every_norm_and_gaps_where_a_loop_did_not_run(run: Run) -> None:
    heatmap = state.state_norms(run).data[0]
    for loop, series in by_index(run.series, records.state_norm).items():
        shown = heatmap.z[loop]
        np.testing.assert_allclose(shown[np.isfinite(shown)], series.values, rtol=1e-6)
        assert heatmap.x[np.isfinite(shown)].tolist() == series.steps.tolist()


def test_the_profile_averages_quarters_over_steps_of_at_least_eight_loops(run: Run) -> None:
    lines = state.state_norm_profile(run).data
    loops = by_index(run.series, records.state_norm)
    deep = loops[7].steps
    assert [line.x.tolist() for line in lines] == [list(range(8))] * 4
    for quarter, line in enumerate(lines):
        kept = deep[(deep > 500 * quarter) & (deep <= 500 * (quarter + 1))]
        assert line.name == f"around step {kept.mean():,.0f}"
        expected = [loops[loop].values[np.isin(loops[loop].steps, kept)].mean() for loop in range(8)]
        np.testing.assert_allclose(line.y, expected, rtol=1e-6)


def test_a_plot_is_absent_when_its_series_are(run: Run) -> None:
    present = [
        [plot(part) is not None for plot in ALL]
        for part in (only(run, "time"), only(run, "train/"), only(run, "val/"), only(run, "loop/"))
    ]
    assert present == [
        [False, False, False, False, False],
        [True, False, False, False, False],
        [True, True, True, False, False],
        [False, False, False, True, True],
    ]


def test_one_number_of_loops_makes_no_curve(make_run: MakeRun) -> None:
    assert loss.loss_over_num_loops(read_run(make_run(num_steps=200, validated=(4,)))) is None


def test_the_loss_range_leaves_out_the_start_and_lone_spikes(run: Run) -> None:
    train = run.series[records.TRAIN_LOSS]
    train.values[120] = 50.0
    low, high = loss.loss(run).layout.yaxis.range
    after_start = train.values[train.steps >= 100]
    assert low < after_start.min()
    assert np.median(after_start) < high < train.values[0]


def test_a_run_with_one_step_or_without_a_finite_loss_is_drawn(run: Run) -> None:
    train = run.series[records.TRAIN_LOSS]
    single = run._replace(series={records.TRAIN_LOSS: train._replace(steps=train.steps[:1], values=train.values[:1])})
    assert loss.loss(single).layout.yaxis.range is None
    train.values[:] = np.nan
    assert loss.loss(only(run, "train/")).layout.yaxis.range is None


def relative_luminance(color: str) -> float:
    channels = np.array(list(bytes.fromhex(color[1:]))) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_sequential_scales_are_monotone_in_lightness() -> None:
    light = [relative_luminance(mix(LIGHT.ramp, fraction)) for fraction in np.linspace(0, 1, 16)]
    dark = [relative_luminance(mix(DARK.ramp, fraction)) for fraction in np.linspace(0, 1, 16)]
    assert (np.diff(light) < 0).all()
    assert (np.diff(dark) > 0).all()


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_text_has_the_contrast_of_wcag_aa(palette) -> None:
    for text in (palette.text, palette.muted):
        for ground in (palette.page, palette.card):
            darker, lighter = sorted((relative_luminance(text), relative_luminance(ground)))
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2 level AA
