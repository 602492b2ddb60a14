"""The preset of looped attention trains, evaluates, decodes with an exit rule, is exported and samples."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import recorded

from mythos.cli.main import main
from mythos.config import records
from mythos.config.load import load
from mythos.config.loop_parts.attention import CrossLoopAttentionConfig

SMALL = """model.vocab_size=512 model.dim=32 model.attention.num_heads=2 model.attention.num_kv_heads=1
model.ffn.hidden_dim=64 model.core_ffn.hidden_dim=16 model.core_ffn.num_experts=4 data.seq_len=32 data.batch_size=4
data.micro_batch_size=2 run.num_steps=12 run.validation={every:6,num_batches:2,num_loops:[1,4,8]}
run.checkpoint={every:12} schedule.num_warmup_steps=2 parallel.device=cpu tracking.log_every=1
telemetry.trace_every=4""".split()


def test_the_preset_joins_the_three() -> None:
    config = load(["experiment=looped-attention"])
    assert config.model.loop.parts == (CrossLoopAttentionConfig(),)
    assert config.halting.kind == "ponder"
    assert config.halting.straight_through
    assert config.depth.grad_loops == config.depth.num_loops == 8


@pytest.mark.slow
def test_the_preset_trains_evaluates_decodes_and_is_exported(packed: Path, tmp_path: Path, capsys) -> None:
    run, out = tmp_path / "looped-attention", tmp_path / "out"
    options = [f"data.dir={packed}", f"run.dir={tmp_path}"]
    assert main(["train", "experiment=looped-attention", *SMALL, *options]) == 0
    losses = recorded(run, records.TRAIN_LOSS)
    assert losses[12] < losses[1]
    gates = recorded(run, "loop/cross_loop_attention/largest_gate")
    assert gates[4] > 0
    assert gates[12] > gates[4]
    assert sum(recorded(run, f"halting/mass/t{loop:02d}")[12] for loop in range(8)) == pytest.approx(1, rel=1e-5)

    assert main(["evaluate", str(run), "--num-loops", "1", "4", "8"]) == 0
    assert main(["trace", str(run), "--prompt", "the king", "--num-loops", "4"]) == 0
    with np.load(run / "trace" / "trace.npz") as trace:
        assert trace["further_attention_TCHSS"].shape == trace["attention_TCHSS"].shape
        assert np.abs(trace["further_gate_CH"]).max() > 0
    assert main(["export", str(run), "--to", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["halting"]["straight_through"]
    texts = []
    for folder in (run, out):
        capsys.readouterr()
        options = ["--exit-rule", "quantile", "--exit-threshold", "0.5", "--temperature", "0", "--num-tokens", "12"]
        assert main(["sample", str(folder), "--prompt", "the king", "--num-loops", "8", *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert main(["report", str(run)]) == 0
