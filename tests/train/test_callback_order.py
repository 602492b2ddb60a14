"""The callbacks share one value a step and nothing else; their order is that of one list."""

import inspect

import lightning.pytorch as pl
import pytest

from mythos.callbacks.base import StepCallback, StepResult
from mythos.callbacks.checkpointing import Checkpointing
from mythos.config import records
from mythos.data.datamodule import TokenDataModule
from mythos.parallel.stopping import StopRequest
from mythos.parallel.watchdog import Watchdog
from mythos.train import build
from mythos.train.build import train
from mythos.train.callbacks import build_callbacks
from mythos.train.run_directory import prepare

ORDER = """Heartbeat Steps DataPosition Attempts Guard Preemption RouterBalance RunRecord Throughput Stragglers
ProfileWindow LoopTelemetry Alarms Validation Progress Checkpointing""".split()


def names(callbacks: list) -> list[str]:
    return [type(callback).__name__ for callback in callbacks]


def test_the_trainer_runs_the_callbacks_in_the_order_of_the_list(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure("run.num_steps=2", "schedule.num_warmup_steps=1")
    directory = prepare(config)
    data = TokenDataModule(config.data, config.run.seed, 1)
    listed = build_callbacks(config, directory, data, StopRequest(), Watchdog(directory.path, None)).ordered
    assert names(listed) == ORDER

    calls: list[str] = []
    for kind in {type(callback) for callback in listed if isinstance(callback, StepCallback)}:
        act = kind.on_step_end

        def act_and_note(self, trainer, module, result, act=act):
            calls.append(type(self).__name__)
            return act(self, trainer, module, result)

        monkeypatch.setattr(kind, "on_step_end", act_and_note)
    trainers, build_trainer = [], build.build_trainer
    monkeypatch.setattr(build, "build_trainer", lambda *a: (trainers.append(build_trainer(*a)), trainers[-1])[1])
    train(config, directory)
    assert names(trainers[0].callbacks) == ORDER
    assert calls == [name for name in ORDER if name != "Steps"] * 2


def test_a_dense_core_has_no_router_to_balance(configure) -> None:
    config = configure("model=debug-dense")
    directory, data = prepare(config), TokenDataModule(config.data, config.run.seed, 1)
    listed = build_callbacks(config, directory, data, StopRequest(), Watchdog(directory.path, None)).ordered
    assert names(listed) == [name for name in ORDER if name != "RouterBalance"]


def test_no_callback_is_built_from_another(configure) -> None:
    config = configure()
    directory, data = prepare(config), TokenDataModule(config.data, config.run.seed, 1)
    for callback in build_callbacks(config, directory, data, StopRequest(), Watchdog(directory.path, None)).ordered:
        held = [value for value in vars(callback).values() if isinstance(value, pl.Callback)]
        assert held == []
        taken = [part.annotation for part in inspect.signature(type(callback)).parameters.values()]
        assert not any(isinstance(kind, type) and issubclass(kind, pl.Callback) for kind in taken)


def test_the_last_callback_receives_what_all_others_produced(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[StepResult] = []
    save = Checkpointing.on_step_end

    def note(self, trainer, module, result: StepResult) -> None:
        results.append(result)
        save(self, trainer, module, result)

    monkeypatch.setattr(Checkpointing, "on_step_end", note)
    config = configure("tracking.log_every=2", "data.micro_batch_size=1")
    losses = train(config, prepare(config))
    assert [result.step for result in results] == list(range(1, 9))
    assert [result.step for result in results if result.training is not None] == [1, 2, 4, 6, 8]
    assert [result.step for result in results if result.speed is not None] == [1, 2, 4, 6, 8]
    assert [result.step for result in results if result.telemetry is not None] == [3, 6]
    assert [result.step for result in results if result.validation is not None] == [4, 8]
    assert results[-1].validation == losses
    assert not any(result.is_skipped or result.is_profiled or any(result.votes) for result in results)
    for result in results:
        assert len(result.observations) == 4
        assert result.gradients.norm**2 == pytest.approx(
            sum(x.item() for x in result.gradients.square_by_group.values())
        )
    last = results[-1]
    assert last.training[records.GRAD_NORM] == pytest.approx(last.gradients.norm, rel=1e-6)
    assert last.training[records.TRAIN_LOSS] == pytest.approx(
        sum(one.nll.item() for one in last.observations), rel=1e-6
    )
