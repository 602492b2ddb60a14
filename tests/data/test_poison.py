import json
from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.data import poison
from mythos.data.poison import (
    FAILED_FILE,
    FAILURES_FILE,
    STEP_FILE,
    Step,
    StepRecord,
    Witness,
    failed_step,
    forget,
    mark_failure,
    poisoned,
)

SEVENTH, EIGHTH = Step(7, 24, 28), Step(8, 28, 32)


def fail(run: Path, step: Step) -> None:
    """Simulate an attempt whose step fails."""
    StepRecord(run).begin(step)
    mark_failure(run)


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


def test_kills_from_outside_are_no_failures(tmp_path: Path) -> None:
    """Nobody has marked them: whoever could was killed with the step."""
    for _ in range(5):
        StepRecord(tmp_path).begin(SEVENTH)
        assert start(tmp_path) == ()
    fail(tmp_path, SEVENTH)
    assert start(tmp_path) == ()
    StepRecord(tmp_path).begin(SEVENTH)
    assert start(tmp_path) == ()
    fail(tmp_path, SEVENTH)
    assert start(tmp_path) == (SEVENTH,)


@pytest.mark.parametrize("survived", [1, 2, 3])
def test_a_start_that_is_killed_while_it_counts_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Killed before each of its writes: failures.json, and the removal of either file."""
    fail(tmp_path, SEVENTH)
    with monkeypatch.context() as patch:
        writes = iter(range(survived - 1))

        def dying(function):
            def act(*arguments):
                if next(writes, None) is None:
                    raise SystemExit
                return function(*arguments)

            return act

        for name in ("write_text", "remove"):
            patch.setattr(poison, name, dying(getattr(poison, name)))
        with pytest.raises(SystemExit):
            start(tmp_path)
    assert start(tmp_path) == ()
    assert start(tmp_path) == ()
    assert not (tmp_path / FAILED_FILE).exists()
    fail(tmp_path, SEVENTH)
    assert start(tmp_path) == (SEVENTH,)


def test_a_witness_sees_only_steps_of_its_own_attempt(tmp_path: Path) -> None:
    StepRecord(tmp_path).begin(SEVENTH)
    witness = Witness(tmp_path)
    witness.mark()
    assert not (tmp_path / FAILED_FILE).exists(), "the record is that of an earlier attempt"
    record = StepRecord(tmp_path)
    record.begin(EIGHTH)
    record.end()
    assert not witness.has_failure
    record.begin(EIGHTH)
    witness.mark()
    mark_failure(tmp_path, SEVENTH)
    assert json.loads((tmp_path / FAILED_FILE).read_text())["step"] == [*EIGHTH], "an attempt has one failure"


def test_failures_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    old = {"setting": "a", "failures": [[*SEVENTH, 1]], "left_out": []}
    (tmp_path / FAILURES_FILE).write_text(json.dumps(old))
    fail(tmp_path, SEVENTH)
    assert start(tmp_path) == (SEVENTH,)
