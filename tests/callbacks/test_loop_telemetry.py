from types import SimpleNamespace

import torch
from helpers import random_batch, random_model, run_config
from torch._dynamo.utils import counters

from mythos.callbacks.loop_telemetry import LoopTelemetry
from mythos.train.module import MythosModule


def test_the_extra_forward_compiles_nothing() -> None:
    """Its few rows would make the compiled blocks compile again."""
    config = run_config("model=debug-dense", "telemetry.trace_every=1", "telemetry.trace_rows=1")
    model = random_model(config.model)
    for block in (*model.prelude, *model.core.blocks, *model.coda):
        block.compile(backend="eager", dynamic=False)
    batch = random_batch(config.model)
    with torch.no_grad():
        model(batch, 2)
        before = counters["stats"]["unique_graphs"]
        telemetry = LoopTelemetry(config, None, None)
        trainer = SimpleNamespace(global_step=0, accumulate_grad_batches=1)
        telemetry.on_train_batch_start(trainer, MythosModule(config, model), batch, 0)
        assert telemetry.evaluated["nll_X"].shape == (len(telemetry.num_loops),)
        assert counters["stats"]["unique_graphs"] == before > 0
        model(batch._replace(tokens_BS=batch.tokens_BS), 2)
        assert counters["stats"]["unique_graphs"] == before
