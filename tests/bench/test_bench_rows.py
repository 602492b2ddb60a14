"""``mythos bench attention``, ``loss`` and ``optimizer``: arms compute the same, and rows are derived from times."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from mythos.account.parameters import count_parameters
from mythos.bench import attention, loss, optimizer, rows
from mythos.bench.step import random_documents
from mythos.bench.timing import Spread
from mythos.cli.main import main
from mythos.config.base import ConfigError
from tests.helpers import run_config

CPU = torch.device("cpu")
SHAPE = attention.Shape(batch=2, num_heads=4, num_kv_heads=2, seq_len=32, head_dim=8)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the command would choose the GPU and its precision")


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
    """Softmax attention in fp64, from its definition."""
    key, value = (each.double().repeat_interleave(2, dim=1) for each in (key, value))
    scores = query.double() @ key.transpose(-1, -2) / SHAPE.head_dim**0.5
    is_visible = torch.ones(SHAPE.seq_len, SHAPE.seq_len, dtype=torch.bool).tril()
    if ids is not None:
        is_visible = is_visible & (ids[:, None, :, None] == ids[:, None, None, :])
    return scores.masked_fill(~is_visible, float("-inf")).softmax(-1) @ value


@pytest.mark.parametrize("has_documents", [False, True])
@pytest.mark.parametrize("name", ["training", "flash", "math"])
def test_every_arm_computes_the_reference_attention(name: str, has_documents: bool) -> None:
    ids = random_documents((2, 32), 6, CPU) if has_documents else None
    inputs = attention.Inputs(SHAPE, CPU, torch.float32)
    result = attention.attention(name, ids, SHAPE, CPU, torch.float32)(*inputs.query_key_value)
    torch.testing.assert_close(result.double(), reference(*inputs.query_key_value, ids), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("has_documents", [False, True])
def test_flex_computes_the_reference_attention(has_documents: bool) -> None:
    ids = random_documents((2, 32), 6, CPU) if has_documents else None
    inputs = [each.detach() for each in attention.Inputs(SHAPE, CPU, torch.float32).query_key_value]
    result = attention.attention("flex", ids, SHAPE, CPU, torch.float32)(*inputs)
    torch.testing.assert_close(result.double(), reference(*inputs, ids), rtol=1e-5, atol=1e-5)


def test_an_arm_that_cannot_run_is_reported_with_its_reason() -> None:
    result = attention.compare(SHAPE, None, ["cudnn", "math"], CPU, torch.float32, 2, 1)
    assert [row.name for row in result.rows] == ["math"]
    assert list(result.refused) == ["cudnn"]
    assert result.refused["cudnn"]


def test_attention_counts_the_causal_half() -> None:
    num_pairs = sum(query + 1 for query in range(32)) - 32 / 2  # the diagonal counts half
    assert SHAPE.num_flops == 3 * 2 * 2 * 2 * 4 * num_pairs * 8


@pytest.mark.parametrize("text", ["b2-h4", "b2-h4-g3-s32-p8", "b0-h4-g2-s32-p8"])
def test_wrong_shapes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        attention.parse_shape(text)
    assert attention.parse_shape(str(SHAPE)) == SHAPE


def test_every_arm_computes_the_same_loss() -> None:
    shape = loss.Shape(num_tokens=24, dim=8, vocab_size=40)
    x, weight = torch.randn(24, 8), torch.randn(40, 8)
    target = torch.randint(40, (24,))
    expected = functional.nll_loss((x @ weight.T).log_softmax(-1), target)
    arms = loss.arms(shape, [5, 12, 24])
    assert list(arms) == ["fp32 logits", "training, at once", "chunks of 5", "chunks of 12"]
    for arm in arms.values():
        torch.testing.assert_close(arm(x, weight, target), expected)
    assert shape.num_flops == 3 * 2 * 24 * 8 * 40


def test_ratios_of_rows_are_relative_to_the_first() -> None:
    calls: list[str] = []
    first, second = rows.measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 10**6, CPU, 3, 2)
    assert calls == ["a"] * 2 + ["b"] * 2 + ["a", "b"] * 3
    assert first.ratio == Spread(1, 1, 1)
    assert second.tflops == pytest.approx(1e6 / second.time.median_ms / 1e9)
    assert second.peak_bytes is None


def test_the_share_of_the_optimiser_falls_with_the_tokens() -> None:
    row = rows.Row("adamw", Spread(30, 30, 30), None, Spread(1, 1, 1), None)
    comparison = optimizer.Comparison([row], {"adamw": 0}, Spread(10, 10, 10), tokens_of_micro_batch=100)
    assert comparison.share(row, 100) == pytest.approx(0.75)
    assert comparison.share(row, 900) == pytest.approx(0.25)


def test_optimizers_are_timed_on_the_same_model() -> None:
    size = ("data.seq_len=16", "data.batch_size=2", "data.micro_batch_size=1", "parallel.device=cpu", "depth.mean=2")
    config = run_config(*size)
    comparison = optimizer.compare(config, CPU, 0, num_rounds=2, num_warmup=1)
    assert [row.name for row in comparison.rows] == ["adamw", "muon_adamw"]
    assert comparison.tokens_of_micro_batch == 16
    num_step_counts = 58  # one for each tensor
    assert comparison.state_bytes["adamw"] == 4 * (2 * count_parameters(config.model).total + num_step_counts)
    assert comparison.state_bytes["muon_adamw"] < comparison.state_bytes["adamw"]


@no_gpu
def test_the_commands_print_tables_and_write_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "numbers.json"
    common = ["--rounds", "2", "--warmup", "1", "--json", str(file)]
    assert main(["bench", "attention", str(SHAPE), "--arms", "training", "math", "--documents", "8", *common]) == 0
    masks = json.loads(file.read_text())["shapes"][str(SHAPE)]
    assert list(masks) == ["causal", "documents"]
    assert [row["name"] for row in masks["documents"]["rows"]] == ["training", "math"]
    assert main(["bench", "loss", "--tokens", "32", "--dim", "8", "--vocab", "64", "--chunks", "16", *common]) == 0
    assert len(json.loads(file.read_text())["rows"]) == 3
    size = ["data.seq_len=16", "data.batch_size=1", "data.micro_batch_size=1"]
    assert main(["bench", "optimizer", "model=debug", *size, "--tokens", "64", *common]) == 0
    shares = [row["shares"]["64"] for row in json.loads(file.read_text())["rows"]]
    assert f"{shares[0]:.2%}" in capsys.readouterr().out
    assert main(["bench", "attention", "--arms", "fast"]) == 2
    assert main(["bench", "loss", "--tokens", "0"]) == 2
