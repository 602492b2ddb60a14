"""``data.max_epochs``: a run that reads its windows more often is refused with both numbers of tokens."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import run_config

from mythos.config.base import ConfigError
from mythos.data.epochs import check_epochs
from mythos.data.windows import Windows


def run_of(directory: Path, *overrides: str):
    return run_config(
        f"data.dir={directory}", "data.seq_len=8", "data.batch_size=4", "data.micro_batch_size=4", *overrides
    )


def test_a_run_may_read_its_windows_up_to_the_limit(make_dataset: Callable[..., Path]) -> None:
    directory = make_dataset([100, 100, 121])
    num_windows = len(Windows(directory, "train", 8, keep_partial=False))
    assert num_windows == 40
    check_epochs(run_of(directory, "run.num_steps=10", "data.max_epochs=1", "schedule.num_warmup_steps=2"))
    check_epochs(run_of(directory, "run.num_steps=25", "data.max_epochs=2.5"))
    check_epochs(run_of(directory, "run.num_steps=1000"))


@pytest.mark.parametrize(
    ("num_steps", "limit", "epochs", "fewer", "least"),
    [(11, "1", "1.10", 10, 2), (26, "2.5", "2.60", 25, 3), (2000, "1", "200.00", 10, 200)],
)
def test_a_longer_run_is_refused(
    make_dataset: Callable[..., Path], num_steps: int, limit: str, epochs: str, fewer: int, least: int
) -> None:
    directory = make_dataset([100, 100, 121])
    config = run_of(directory, f"run.num_steps={num_steps}", f"data.max_epochs={limit}")
    with pytest.raises(ConfigError) as caught:
        check_epochs(config)
    assert str(caught.value) == (
        f"data.dir: {directory} has 320 training tokens, but {num_steps:,} steps (run.num_steps) read "
        f"{num_steps * 32:,} from it, {epochs} epochs where data.max_epochs is {limit}; pack more text, set "
        f"run.num_steps={fewer}, or raise data.max_epochs."
    )
    check_epochs(run_of(directory, f"run.num_steps={fewer}", f"data.max_epochs={limit}"))
    check_epochs(run_of(directory, f"run.num_steps={num_steps}", f"data.max_epochs={least}"))


def test_less_data_than_a_step_leaves_no_number_of_steps(make_dataset: Callable[..., Path]) -> None:
    config = run_of(make_dataset([20]), "run.num_steps=5", "data.max_epochs=1")
    sentence = r"10.00 epochs where data.max_epochs is 1; pack more text, or raise data.max_epochs"
    with pytest.raises(ConfigError, match=sentence):
        check_epochs(config)


def test_each_source_of_a_mixture_has_its_own_epochs(make_dataset: Callable[..., Path]) -> None:
    large, small = make_dataset([800], name="large"), make_dataset([81], name="small")
    sources = f"data.sources=[{{dir: {large}, weight: 3}}, {{dir: {small}, weight: 1}}]"
    words = ["data.dir=null", sources, "data.seq_len=8", "data.batch_size=4", "data.micro_batch_size=4"]
    check_epochs(run_config(*words, "data.max_epochs=1", "run.num_steps=10"))
    sentence = r"^data.sources: .*small has 80 training tokens, but 20 steps .* read 160 from"
    with pytest.raises(ConfigError, match=sentence):
        check_epochs(run_config(*words, "data.max_epochs=1", "run.num_steps=20"))


def test_skipped_samples_count_as_read(make_dataset: Callable[..., Path]) -> None:
    directory = make_dataset([321])
    config = run_of(directory, "run.num_steps=10", "data.max_epochs=1", "data.skipped=[[4, 8]]")
    with pytest.raises(ConfigError, match=r"10 steps \(run.num_steps\) read 352 from it.* set run.num_steps=9,"):
        check_epochs(config)
