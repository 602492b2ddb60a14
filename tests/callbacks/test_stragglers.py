from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mythos.callbacks import stragglers as module
from mythos.callbacks.stragglers import Stragglers, stragglers
from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.load import load


@pytest.mark.parametrize(
    ("seconds", "slow"),
    [
        ([1.0, 1.0, 1.0, 1.0], set()),
        ([1.0, 1.0, 1.49, 1.0], set()),
        ([1.0, 1.0, 1.51, 1.0], {2}),
        ([1.0, 3.0], {1}),
        ([4.0, 1.0, 1.0, 5.0, 1.0], {0, 3}),
        ([0.001, 0.009], set()),
        ([9.0], set()),
    ],
)
def test_a_straggler_is_far_from_the_median(seconds: list[float], slow: set[int]) -> None:
    assert stragglers(seconds, 1.5) == slow
    assert stragglers(seconds, None) == set()


def test_the_first_steps_of_a_process_are_not_compared(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """This rank loads for 5 seconds in its first two steps, in which the other is quick, and in its sixth."""
    other = torch.tensor([0.0, 0.01], dtype=torch.float64)
    monkeypatch.setattr(module, "sum_over_ranks", lambda trainer, parts: {"seconds": parts["seconds"] + other})
    trainer: Any = SimpleNamespace(
        device=torch.device("cpu"),
        world_size=2,
        global_rank=0,
        is_global_zero=True,
        accumulate_grad_batches=1,
        loggers=[],
    )
    written: list[tuple[int, str]] = []
    metrics: Any = SimpleNamespace(write=lambda trainer, entry, step: written.extend((step, name) for name in entry))
    loader: Any = SimpleNamespace(last_seconds=0.0)
    config = load(["tracking.log_every=1"])
    callback = Stragglers(config, metrics, loader)
    callback.hosts = ["here", "there"]
    for step, loader.last_seconds in enumerate([5.0, 5.0, 0.01, 0.01, 0.01, 5.0], start=1):
        result: Any = SimpleNamespace(step=step)
        callback.on_train_batch_start(trainer, trainer, None, step - 1)
        callback.on_step_end(trainer, trainer, result)
    assert [step for step, name in written if name == records.SLOWEST_RANK] == [3, 4, 5, 6]
    assert [step for step, name in written if name == records.alarm("straggler")] == [6]
    assert "straggler at step 6: rank 0 on here computes 5.000 s" in capsys.readouterr().err


def test_a_limit_that_every_other_rank_exceeds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run: straggler_ratio is 1, which every other rank exceeds"):
        load(["run.straggler_ratio=1"])
