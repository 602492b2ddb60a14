"""Figures of the state, the experts, halting, gradients and speed, on a run with every series."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config import records
from mythos.report import draw
from mythos.report.events import events
from mythos.report.figures import experts, gates, loss, state, training
from mythos.report.read import Run, Series, by_index, by_layer, read_run
from mythos.report.sections import ONE_RUN

MakeRun = Callable[..., Path]


@pytest.fixture
def directory(make_run: MakeRun) -> Path:
    return make_run(trace_every=20, num_steps=1000)


@pytest.fixture
def run(directory: Path) -> Run:
    return read_run(directory)


def last_arrays(directory: Path) -> dict[str, list]:
    return json.loads((directory / records.TRACE_FILE_NAME).read_text().splitlines()[-1])


def test_a_figure_is_absent_without_its_series(make_run: MakeRun) -> None:
    empty = read_run(make_run(lines=[{"schema": records.SCHEMA}, {"step": 1, "time": 1.0, "tokens": 1}]))
    assert [plot.title for section in ONE_RUN for plot in section.plots if plot.draw(empty) is not None] == []


def test_gates_are_drawn_by_loop_from_the_last_measurement(run: Run) -> None:
    (mean,) = gates.gate_means(run).data
    last = by_index(run.series, lambda loop: records.gate_mean("loop/keep_gate/keep", loop))
    assert mean.name == "keep_gate/keep"
    np.testing.assert_allclose(mean.y, [series.values[-1] for series in last.values()], rtol=1e-6)
    assert list(mean.x) == list(last)
    near_0, near_1 = gates.saturated_gates(run).data
    assert (near_0.name, near_1.name) == ("keep_gate/keep near 0", "keep_gate/keep near 1")
    np.testing.assert_allclose(near_1.y, [0.01 * loop for loop in near_1.x], rtol=1e-6)
    assert loss.loss_gain(run).data[0].y[-1] == pytest.approx(run.series[records.LOSS_GAIN].values[-1], rel=1e-6)


def test_a_logarithmic_heatmap_has_exponents_as_colours_and_values_on_hover(run: Run) -> None:
    heatmap = state.relative_changes(run).data[0]
    series = by_index(run.series, records.relative_change)[2]
    known = np.isfinite(heatmap.z[2])
    np.testing.assert_allclose(10 ** heatmap.z[2][known].astype(float), series.values, rtol=1e-5)
    np.testing.assert_allclose(heatmap.customdata[2][known], series.values, rtol=1e-6)
    ticks = [float(text) for text in heatmap.colorbar.ticktext]
    np.testing.assert_allclose(np.log10(ticks), heatmap.colorbar.tickvals, atol=1e-6)
    assert len(set(ticks)) == len(ticks) >= 2


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.8, 3.1, ["1", "2", "3"]),
        (0.009, 1.0, ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]),
        (1e-6, 2.0, ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]),
        (1.1, 1.4, ["1.1", "1.19", "1.29", "1.4"]),
    ],
)
def test_a_logarithmic_colour_bar_has_round_ticks(low: float, high: float, ticks: list[str]) -> None:
    loops = {0: Series.of([1, 2], [low, high])}
    assert list(draw.heatmap_of(loops, "x", is_log=True).data[0].colorbar.ticktext) == ticks


def test_a_logarithmic_axis_has_ticks_between_powers_of_ten_over_few_of_them() -> None:
    assert draw.log_axis("x", [Series.of([1, 2], [0.5, 20.0])])["dtick"] == "D2"
    assert draw.log_axis("x", [Series.of([1, 2], [0.0, 1e-4]), Series.of([1], [1.0])])["dtick"] == 1


def test_token_correlation_has_the_same_scale_in_every_run(run: Run) -> None:
    heatmap = state.token_correlations(run).data[0]
    assert (heatmap.zmin, heatmap.zmax) == (0, 1)
    series = by_index(run.series, records.token_correlation)[1]
    np.testing.assert_allclose(heatmap.z[1][np.isfinite(heatmap.z[1])], series.values, rtol=1e-6)


def test_update_norms_are_those_of_the_last_measurement(run: Run) -> None:
    lines = state.update_norms(run).data
    assert [line.name for line in lines] == ["layer 0", "layer 1"]
    layers = by_layer(run.series, records.update_norm)
    for line, loops in zip(lines, layers.values(), strict=True):
        np.testing.assert_allclose(line.y, [series.values[-1] for series in loops.values()], rtol=1e-6)
        assert line.x.tolist() == list(loops)


def test_the_load_heatmap_holds_the_last_array_layer_by_layer(directory: Path, run: Run) -> None:
    load_LTE = np.array(last_arrays(directory)[records.EXPERT_LOAD])
    heatmap = experts.expert_load(run).data[0]
    num_loops = load_LTE.shape[1]
    np.testing.assert_allclose(heatmap.z, load_LTE.reshape(-1, 8), rtol=1e-6)
    assert heatmap.y[num_loops] == "l2 t00"  # of every second layer
    overlap = experts.expert_overlap(run).data[0]
    np.testing.assert_allclose(overlap.z, last_arrays(directory)[records.EXPERT_OVERLAP], rtol=1e-6)


def test_heatmaps_of_experts_are_means_over_layers(run: Run) -> None:
    for name, value in ((records.load_violation(0, 1), 0.2), (records.load_violation(1, 1), 0.6)):
        run.series[name].values[:] = value
    heatmap = experts.load_violations(run).data[0]
    shown = heatmap.z[1]
    np.testing.assert_allclose(shown[np.isfinite(shown)], 0.4, rtol=1e-6)


def test_a_layer_without_a_value_is_left_out_of_the_mean(run: Run) -> None:
    first, second = (run.series[records.router_entropy(layer, 0)] for layer in (0, 1))
    first.values[:], second.values[:] = 1.0, 3.0
    run.series[records.router_entropy(1, 0)] = Series(second.steps[::2], second.values[::2])
    shown = experts.router_entropies(run).data[0].z[0]
    assert shown[:2].tolist() == [2.0, 1.0]


def test_expert_changes_start_at_loop_one(run: Run) -> None:
    same, none = experts.expert_changes(run).data
    assert same.x[0] == none.x[0] == 1
    assert same.y[0] == pytest.approx(1 - np.exp(-0.4))
    assert none.y[0] == pytest.approx(0.2 * np.exp(-0.4))


def test_gradients_are_drawn_in_total_and_by_group(run: Run) -> None:
    lines = training.gradient_norms(run).data
    assert [line.name for line in lines] == ["all parameters", "experts", "hidden", "other"]
    np.testing.assert_allclose(lines[0].y, run.series[records.GRAD_NORM].values, rtol=1e-6)
    rates = training.learning_rates(run).data
    assert [line.name for line in rates] == ["experts", "hidden", "other"]


def test_speed_memory_and_depth_hold_their_series(run: Run) -> None:
    assert [line.name for line in training.utilisation(run).data] == ["MFU", "waiting for data"]
    assert training.memory(run).data[1].y[0] == 68.0
    drawn, _, grad_loops = loss.loops_drawn(run).data
    np.testing.assert_array_equal(drawn.y, run.series[records.NUM_LOOPS].values.astype(np.float32))
    assert 2 <= grad_loops.y.min() <= grad_loops.y.max() <= 4


@pytest.mark.parametrize(("highest", "end"), [(4e-6, 0.05), (0.04, 0.05), (0.5, 0.525)])
def test_small_shares_have_an_axis_with_distinct_ticks(run: Run, highest: float, end: float) -> None:
    run.series[records.DATA_WAIT_SHARE].values[:] = highest
    run.series[records.MFU].values[:] = highest / 2
    axis = training.utilisation(run).layout.yaxis
    assert axis.range == pytest.approx((0, end))
    assert axis.tickformat == ".3~%"  # 0.5% stays 0.5%, not 0%


def test_a_colour_bar_names_its_quantity_and_cosines_begin_with_the_second_loop(run: Run) -> None:
    heatmap = state.cosines(run).data[0]
    assert heatmap.colorbar.title.text.startswith("cosine")
    assert heatmap.y[0] == 1


def test_events_are_alarms_with_their_values_and_guard_interventions(run: Run) -> None:
    assert [(event.step, event.kind, event.name, event.detail) for event in events(run)] == [
        (500, "alarm", "token correlation", "0.97, limit 0.95"),
        (500, "guard", "skipped steps", "3"),
    ]
    alarms, guards = loss.timeline(run).data
    assert (alarms.x, alarms.y, alarms.text) == ((500,), ("token correlation",), ("0.97, limit 0.95",))
    assert (guards.x, guards.y) == ((500,), ("skipped steps",))


def test_a_guard_that_did_nothing_is_no_event(run: Run) -> None:
    quiet = run._replace(series={"guard/skipped_steps": Series.of([1, 2, 3], [0.0, float("nan"), 2.0])})
    assert [(event.step, event.detail) for event in events(quiet)] == [(3, "2")]


def test_an_incomplete_last_line_of_arrays_is_ignored(directory: Path) -> None:
    path = directory / records.TRACE_FILE_NAME
    whole = read_run(directory).arrays
    with path.open("a") as file:
        file.write('{"step": 1020, "experts/load": [[[1.0, 2')
    torn = read_run(directory).arrays
    assert torn.keys() == whole.keys() == {records.EXPERT_LOAD, records.EXPERT_LOAD_LAYERS, records.EXPERT_OVERLAP}
    for name, array in whole.items():
        np.testing.assert_array_equal(torn[name], array)


def test_figures_of_loop_parts_are_those_with_the_name_of_a_kind(make_run: MakeRun) -> None:
    names = ("loop/cross_loop_attention/gate", "loop/cross_loop_attention/largest_gate", "loop/film/scale")
    others = (records.state_norm(0), records.JACOBIAN_RADIUS, "loop/loss/T08", "loop/update_norm/l00/t01")
    line = {"step": 1, "time": 1.0, "tokens": 1} | dict.fromkeys((*names, *others), 0.5)
    figure = state.part_figures(read_run(make_run(lines=[{"schema": records.SCHEMA}, line])))
    assert [trace.name for trace in figure.data] == [name.removeprefix("loop/") for name in names]
