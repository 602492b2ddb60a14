import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.report.read import by_index, nearest_num_loops, read_run

MakeRun = Callable[..., Path]
SCHEMA = {"schema": records.SCHEMA}


def line_of(step: int, **metrics: float | None) -> dict:
    return {"step": step, "time": 100.0 + step, "tokens": 10 * step, **metrics}


def test_columns_contain_each_metric_at_its_own_steps(make_run: MakeRun) -> None:
    loss = records.TRAIN_LOSS
    lines = [
        SCHEMA,
        line_of(1, **{loss: 7.5}),
        line_of(2, x=1),
        line_of(2, **{loss: 7.25}),
        line_of(3, **{loss: None}),
    ]
    series = read_run(make_run(lines=lines)).series
    assert series[loss].steps.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(series[loss].values, [7.5, 7.25, np.nan])
    assert series["x"].steps.tolist() == [2]
    assert series["tokens"].values.tolist() == [10, 20, 30]


def test_a_resumed_run_replaces_the_steps_that_it_repeats(make_run: MakeRun) -> None:
    lines = [
        SCHEMA,
        *(line_of(step, x=step, y=step) for step in (1, 2, 3, 4)),
        line_of(3, x=30),
        line_of(5, x=50),
    ]
    series = read_run(make_run(lines=lines)).series
    assert series["x"].steps.tolist() == [1, 2, 3, 5]
    assert series["x"].values.tolist() == [1, 2, 30, 50]
    assert series["y"].steps.tolist() == [1, 2]


@pytest.mark.parametrize("torn", ['{"step": 3, "time": 1', "\x00\x00\x00", '{"step": 3}', "\x00\n"])
def test_an_incomplete_last_line_is_ignored(make_run: MakeRun, torn: str) -> None:
    directory = make_run(lines=[SCHEMA, line_of(1, x=1), line_of(2, x=2)])
    with (directory / records.FILE_NAME).open("a") as file:
        file.write(torn)
    assert read_run(directory).series["x"].values.tolist() == [1, 2]


def test_a_damaged_inner_line_is_refused_with_its_number(make_run: MakeRun) -> None:
    directory = make_run(lines=[SCHEMA, line_of(1)])
    with (directory / records.FILE_NAME).open("a") as file:
        file.write('{"step": 2, "ti\n' + json.dumps(line_of(3)) + "\n")
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: line 3 is not a JSON object.*delete that line\.$"):
        read_run(directory)


@pytest.mark.parametrize("lines", [[], [SCHEMA]])
def test_a_run_without_metrics_is_refused(make_run: MakeRun, lines: list) -> None:
    with pytest.raises(ConfigError, match=r"has no metrics yet; wait"):
        read_run(make_run(lines=lines))


@pytest.mark.parametrize(("first", "schema"), [({"schema": 99}, "by schema 99"), (line_of(1), "without a schema")])
def test_another_schema_is_refused_with_both_numbers(make_run: MakeRun, first: dict, schema: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"written {schema}, but this version of mythos reads schema {records.SCHEMA};"
    ):
        read_run(make_run(lines=[first, line_of(2)]))


@pytest.mark.parametrize("missing", ["config.json", records.FILE_NAME])
def test_a_directory_that_is_not_a_run_is_refused(make_run: MakeRun, missing: str) -> None:
    directory = make_run(num_steps=20)
    (directory / missing).unlink()
    with pytest.raises(ConfigError, match=rf"not a run, because it has no {missing}; give the folder"):
        read_run(directory)


@pytest.mark.parametrize("text", ["{", f'{{"schema": {records.SCHEMA}, "model": {{}}}}'])
def test_an_unreadable_configuration_is_refused_in_one_sentence(make_run: MakeRun, text: str) -> None:
    directory = make_run(num_steps=20)
    (directory / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json: not a configuration of this version") as caught:
        read_run(directory)
    assert "\n" not in str(caught.value)


def test_families_are_sorted_by_index_and_match_by_name(make_run: MakeRun) -> None:
    names = [
        records.validation_loss(8),
        records.validation_loss(2),
        records.state_norm(2),
        records.state_norm(11),
    ]
    run = read_run(make_run(lines=[SCHEMA, line_of(1, **dict.fromkeys(names, 1.0))]))
    assert list(by_index(run.series, records.validation_loss)) == [2, 8]
    assert list(by_index(run.series, records.state_norm)) == [2, 11]


@pytest.mark.parametrize(("mean", "expected"), [(8, 8), (6, 8), (5, 4), (1, 2)])
def test_the_nearest_validated_number_of_loops_to_the_mean_depth(make_run: MakeRun, mean: int, expected: int) -> None:
    losses = {records.validation_loss(num_loops): 1.0 for num_loops in (2, 4, 8)}
    assert nearest_num_loops(read_run(make_run(f"depth.mean={mean}", lines=[SCHEMA, line_of(1, **losses)]))) == expected


def test_without_validation_there_is_no_nearest_number_of_loops(make_run: MakeRun) -> None:
    assert nearest_num_loops(read_run(make_run(lines=[SCHEMA, line_of(1)]))) is None
