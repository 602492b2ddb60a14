"""The bounded history of per-loop metrics, and its charts."""

import math
import re
from itertools import pairwise

import pytest

from mythos.train.trackers.charts import LoopHistory, heatmap, layer_rows, per_layer, spread


def test_a_history_keeps_every_value_until_it_is_full() -> None:
    history = LoopHistory(max_columns=4)
    for step in (10, 20, 30):
        names = {f"loop/state_norm/t{loop:02d}": step + loop for loop in range(1 + step // 10)}
        assert history.add({"train/loss": 1.0, "val/loss/T04": 2.0, "experts/load/l00/t01": 3.0} | names, step)
    steps, rows = history.matrix("loop/state_norm")
    assert steps == [10, 20, 30]
    assert rows[0] == [10, 20, 30]
    assert math.isnan(rows[2][0])
    assert rows[2][1:] == [22, 32]
    assert list(history.columns) == ["loop/state_norm"]
    assert not history.add({"train/loss": 1.0}, 40)


@pytest.mark.parametrize("num_steps", [5, 64, 1000])
def test_a_history_stays_small_and_even(num_steps: int) -> None:
    history = LoopHistory(max_columns=8)
    for step in range(num_steps):
        history.add({"loop/x/t00": float(step)}, step)
    steps, (values,) = history.matrix("loop/x")
    assert 4 <= len(steps) <= 8
    assert values == steps
    assert len({later - earlier for earlier, later in pairwise(steps)}) == 1
    assert steps[0] == 0
    assert steps[-1] > num_steps * 0.7


def test_the_table_of_layers_has_a_row_for_each_layer_and_loop() -> None:
    metrics = {"experts/load/l00/t00": 1.0, "experts/load/l00/t01": 2.0, "experts/entropy/l01/t00": 3.0}
    assert per_layer({"train/loss": 0.0, "loop/x/t00": 1.0, "train/lr/hidden": 2.0} | metrics) == metrics
    columns, rows = layer_rows(metrics)
    assert columns == ["layer", "loop", "experts/entropy", "experts/load"]
    assert rows == [[0, 0, None, 1.0], [0, 1, None, 2.0], [1, 0, 3.0, None]]


def test_lines_are_spread_from_the_first_step_to_the_last() -> None:
    assert spread(range(11), 6) == [0, 2, 4, 6, 8, 10]
    assert spread([7], 6) == [0]


def test_a_heatmap_draws_each_finite_cell_once_with_the_first_row_at_the_bottom() -> None:
    page = heatmap("a <b>", [[0.0, 1.0], [math.nan, 0.5]], ["step 1", "step 9"])
    assert "a &lt;b&gt;" in page
    paths = dict(re.findall(r'<path fill="(#\w+)" d="([^"]*)"', page))
    drawn = {color: path for color, path in paths.items() if path}
    assert drawn == {"#440154": "M0 1h1v1h-1z", "#fde725": "M1 1h1v1h-1z", "#21918c": "M1 0h1v1h-1z"}


def test_the_largest_heatmap_stays_below_100_kilobytes() -> None:
    rows = [[math.sin(loop * step) for step in range(128)] for loop in range(64)]
    assert len(heatmap("loop/state_norm", rows, range(128))) < 150_000
    assert len(heatmap("loop/state_norm", rows[:32], range(128))) < 100_000
