"""Two ranks that hold two sequences each must write what one rank writes that holds all four."""

import copy
import json
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import random_batch, random_model, run_config
from lightning.pytorch import Trainer
from torch import Tensor

from mythos.callbacks.loop_telemetry import LoopTelemetry
from mythos.callbacks.ranks import sum_over_ranks
from mythos.callbacks.run_record import RunRecord
from mythos.callbacks.validation import Validation
from mythos.config import records
from mythos.config.run import RunConfig
from mythos.model.mythos import Mythos
from mythos.train.module import MythosModule
from mythos.types import Batch


class Ranks:
    """Threads that meet in ``reduce``, as processes do."""

    def __init__(self, num_ranks: int) -> None:
        self.barrier = threading.Barrier(num_ranks, timeout=60)
        self.given: dict[int, Tensor] = {}
        self.written: list[list[dict[str, float]]] = [[] for _ in range(num_ranks)]

    def trainer(self, rank: int) -> SimpleNamespace:
        def reduce(given: Tensor, reduce_op: str) -> Tensor:
            assert reduce_op == "sum"
            self.given[rank] = given
            self.barrier.wait()
            total = torch.stack([self.given[other] for other in sorted(self.given)]).sum(0)
            self.barrier.wait()
            return total

        def log(record: dict[str, float], step: int) -> None:
            self.written[rank].append(record)

        return SimpleNamespace(
            strategy=SimpleNamespace(reduce=reduce),
            precision_plugin=SimpleNamespace(forward_context=nullcontext),
            loggers=[SimpleNamespace(log_metrics=log)],
            is_global_zero=rank == 0,
            accumulate_grad_batches=1,
            global_step=0,
        )

    def run(self, work) -> None:
        """Call ``work(rank, trainer)`` on every rank at once."""
        errors: list[BaseException] = []

        def guarded(rank: int) -> None:
            try:
                work(rank, self.trainer(rank))
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=guarded, args=(rank,)) for rank in range(len(self.written))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


def share_of(batch: Batch, rank: int, num_ranks: int) -> Batch:
    """A rank's rows; what the batch says of the whole step stays."""
    rows = slice(rank * 4 // num_ranks, (rank + 1) * 4 // num_ranks)
    return Batch(*(part[rows] if part.dim() else part for part in batch))


def one_step(config: RunConfig, model: Mythos, batch: Batch, num_ranks: int, directory: Path) -> dict[str, float]:
    """All that the first rank writes in a step."""

    def work(rank: int, trainer: Trainer) -> None:
        module = MythosModule(config, copy.deepcopy(model))
        module._trainer = trainer
        data = SimpleNamespace(next_sample=4)
        record = RunRecord(config.tracking, data, 13, 1, config.depth.max_loops)
        telemetry = LoopTelemetry(config, record, directory / f"{num_ranks}-{rank}")
        callbacks = [record, telemetry]
        telemetry.on_train_start(trainer, module)
        share = share_of(batch, rank, num_ranks)
        for callback in callbacks:
            callback.on_train_batch_start(trainer, module, share, 0)
        outputs = module.training_step(share, 0)
        outputs["loss"].backward()
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="sum")
        for callback in callbacks:
            callback.on_before_optimizer_step(trainer, module, SimpleNamespace(param_groups=[]))
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
        trainer.global_step = 1
        for callback in callbacks:
            callback.on_train_batch_end(trainer, module, outputs, share, 0)
        telemetry.teardown(trainer, module, "fit")

    ranks = Ranks(num_ranks)
    ranks.run(work)
    assert not any(ranks.written[1:])
    return {name: value for record in ranks.written[0] for name, value in record.items()}


KINDS = {
    "lock-step": ("depth=fixed", "depth.num_loops=3", "objective.router_z_loss=0.1"),
    "ponder": ("depth=fixed", "depth.num_loops=4", "halting=ponder", "halting.num_exits=2"),
    "act": ("depth=fixed", "depth.num_loops=4", "halting=act"),
    "per-sequence": ("depth.mean=3", "depth.max_loops=6", "depth.num_grad_loops=2", "depth.per_sequence=true"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_write_what_one_would(kind: str, tmp_path: Path) -> None:
    options = ("tracking.trace_every=1", "tracking.jacobian_every=1", "model.embedding_std=0.5", *KINDS[kind])
    model = random_model(run_config(*options).model)
    results, arrays = [], []
    for num_ranks in (1, 2):
        config = run_config(*options, f"tracking.trace_rows={4 // num_ranks}")
        whole = Mythos(config.model, config.halting)
        whole.load_state_dict(model.state_dict(), strict=False)
        for name, parameter in whole.halting.named_parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(len(name)))
        batch = random_batch(config.model, batch=4, num_documents=2)
        batch.targets_BS[0, :5] = -1  # ranks hold different numbers of targets
        batch = batch._replace(num_targets=torch.tensor(4 * 13.0 - 5))
        results.append(one_step(config, whole, batch, num_ranks, tmp_path))
        written = sorted(path.parent.name for path in tmp_path.glob(f"{num_ranks}-*/trace.jsonl"))
        assert written == [f"{num_ranks}-0"]
        arrays.append(json.loads((tmp_path / written[0] / "trace.jsonl").read_text().splitlines()[1]))
    one, two = results
    assert one.keys() == two.keys()
    assert {records.LOAD_VIOLATION, records.token_correlation(2), records.loss_at(1), records.JACOBIAN_RADIUS} <= set(
        one
    )
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    for name in (records.EXPERT_LOAD, records.EXPERT_OVERLAP):
        torch.testing.assert_close(torch.tensor(arrays[1][name]), torch.tensor(arrays[0][name]), atol=1e-3, rtol=0)


def test_tokens_of_all_ranks_count() -> None:
    def work(rank: int, trainer: Trainer) -> None:
        sums = sum_over_ranks(trainer, {"tokens": torch.tensor(10 + rank), "list": torch.full((2, 3), float(rank))})
        assert sums["tokens"].item() == 21
        assert sums["list"].tolist() == [[1.0] * 3] * 2

    Ranks(2).run(work)


def test_the_held_out_loss_is_a_mean_over_the_targets_of_all_ranks() -> None:
    config = run_config("run.validation={every: 1, num_batches: 2, depths: [1, 3]}")
    model = random_model(config.model)
    batch = random_batch(config.model, batch=4)
    batch.targets_BS[0, :9] = -1
    latest = []
    for num_ranks in (1, 2):

        def work(rank: int, trainer: Trainer, num_ranks: int = num_ranks) -> None:
            module = MythosModule(config, copy.deepcopy(model))
            module._trainer = trainer
            share = share_of(batch, rank, num_ranks)
            share = share._replace(num_targets=(share.targets_BS >= 0).sum())
            data = SimpleNamespace(val_dataloader=lambda: [share], next_sample=0)
            validation = Validation(config.run.validation, data, SimpleNamespace(write=lambda *_: None), 1)
            validation.on_step_end(trainer, module, 1)
            latest.append(validation.latest)

        Ranks(num_ranks).run(work)
    expected, *others = latest
    for found in others:
        assert found == pytest.approx(expected, rel=1e-6)
