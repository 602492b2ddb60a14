from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.data.poison import FAILURES_FILE, STEP_FILE, Step, StepRecord, failed_step, forget, poisoned

SEVENTH, EIGHTH = Step(7, 24, 28), Step(8, 28, 32)


def fail(run: Path, step: Step) -> None:
    """Simulate an attempt that ends during a step."""
    StepRecord(run).begin(step)


def start(run: Path, reached: int = 4, setting: str = "a", max_in_a_row: int = 2) -> tuple[Step, ...]:
    return poisoned(run, reached, setting, max_in_a_row)


def test_the_record_names_the_running_step(tmp_path: Path) -> None:
    assert failed_step(tmp_path) is None
    record = StepRecord(tmp_path)
    for step in (Step(10**12, 10**15, 10**15 + 10**6), SEVENTH):
        record.begin(step)
        assert failed_step(tmp_path) == step
    size = (tmp_path / STEP_FILE).stat().st_size
    record.end()
    assert failed_step(tmp_path) is None
    assert (tmp_path / STEP_FILE).stat().st_size == size == 128


def test_the_third_attempt_and_all_later_ones_skip_the_data(tmp_path: Path) -> None:
    fail(tmp_path, SEVENTH)
    assert start(tmp_path) == ()
    assert start(tmp_path) == (), "a start without a failed step counts nothing"
    fail(tmp_path, SEVENTH)
    assert start(tmp_path) == (SEVENTH,)
    assert start(tmp_path, reached=20) == (SEVENTH,)


def test_steps_that_were_overcome_and_other_data_do_not_count(tmp_path: Path) -> None:
    fail(tmp_path, SEVENTH)
    assert start(tmp_path) == ()
    fail(tmp_path, EIGHTH)
    assert start(tmp_path) == ()
    fail(tmp_path, Step(7, 40, 44))
    assert start(tmp_path) == (), "the same step on other data"
    assert start(tmp_path, reached=7) == ()
    fail(tmp_path, SEVENTH)
    assert start(tmp_path) == (), "the first failure was forgotten at step 7"


def test_failures_of_another_configuration_do_not_count(tmp_path: Path) -> None:
    fail(tmp_path, SEVENTH)
    assert start(tmp_path, setting="a") == ()
    fail(tmp_path, SEVENTH)
    assert start(tmp_path, setting="b") == ()
    fail(tmp_path, SEVENTH)
    assert start(tmp_path, setting="b") == (SEVENTH,)


def test_too_many_consecutive_failures_are_refused(tmp_path: Path) -> None:
    batches = [Step(7, start, start + 4) for start in (24, 28, 32)]
    for count, batch in enumerate(batches[:2], start=1):
        for _ in range(2):
            fail(tmp_path, batch)
            skipped = start(tmp_path)
        assert len(skipped) == count
    fail(tmp_path, batches[2])
    assert start(tmp_path) == tuple(batches[:2])
    fail(tmp_path, batches[2])
    with pytest.raises(ConfigError, match=r"max_poison_skips is 2, but step 7 .* 3 batches in a row, .* 32 to 35; the"):
        start(tmp_path)
    with pytest.raises(ConfigError, match=r"the data are not the cause"):
        start(tmp_path)


def test_nothing_is_skipped_if_skipping_is_off(tmp_path: Path) -> None:
    for _ in range(3):
        fail(tmp_path, SEVENTH)
        assert start(tmp_path, max_in_a_row=0) == ()


def test_damage_is_reported_and_a_new_run_forgets_failures(tmp_path: Path) -> None:
    fail(tmp_path, SEVENTH)
    (tmp_path / FAILURES_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"failures.json: damaged; delete it"):
        start(tmp_path)
    forget(tmp_path)
    assert start(tmp_path) == ()
