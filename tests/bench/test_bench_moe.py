import json
from pathlib import Path

import pytest
import torch

from mythos.bench.moe import SHAPES, Setting, Shape, check, measure, parse_shape
from mythos.cli.main import main
from mythos.config.base import ConfigError

TINY = Shape(dim=16, num_experts=4, hidden_dim=8, num_active=2, num_shared=1)


def setting(shape: Shape = TINY, precision: str = "fp32", compiled: bool = False) -> Setting:
    return Setting(shape, 24, torch.device("cpu"), precision, compiled)


def test_shapes_are_parsed_from_their_own_text() -> None:
    assert [parse_shape(str(shape)) for shape in SHAPES] == list(SHAPES)
    with pytest.raises(ConfigError, match="'d2048-e64' is not a shape"):
        parse_shape("d2048-e64")


def test_flops_are_those_of_the_dense_layer_of_equal_active_width() -> None:
    multiplications = 3 * 24 * TINY.dim * (2 + 1) * TINY.hidden_dim
    assert TINY.num_flops(24) == 2 * 3 * multiplications


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((setting(Shape(16, 4, 8, 5, 1)), [], False), "5 active experts of 4"),
        ((setting(Shape(12, 4, 8, 2, 1)), [], False), "widths 12 and 8"),
        ((setting(compiled=True), [], False), "in bf16 only"),
        ((setting(), [], True), "no CUDA device"),
        ((setting(), ["grouped/uneven"], False), "'grouped/uneven' is not an arm"),
        ((setting(), ["dense"], False), "'dense' is not an arm"),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong: tuple[Setting, list[str], bool], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(*wrong)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-weights"])
def test_measure_runs_every_arm(precision: str) -> None:
    names = ["dense/products", "grouped/natural", "plain/balanced", "naive/skewed"]
    arms = measure(setting(precision=precision), names, num_rounds=3, num_warmup=1, with_kernels=False)
    assert [arm.name for arm in arms] == ["dense", *names]
    dense, _, natural, balanced, skewed = arms
    assert dense.ratio == 1
    assert balanced.violation == 0
    assert skewed.violation > natural.violation
    for arm in arms:
        assert arm.time.low_ms <= arm.time.median_ms <= arm.time.high_ms
        assert arm.ratio == pytest.approx(dense.time.median_ms / arm.time.median_ms)
        assert arm.tflops * arm.time.median_ms * 1e9 == pytest.approx(TINY.num_flops(24))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the command would choose the GPU and its precision")
def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "moe.json"
    arguments = ["bench", "moe", str(TINY), "--tokens", "24", "--rounds", "2", "--warmup", "1", "--json", str(file)]
    assert main(arguments) == 0
    written = json.loads(file.read_text())
    assert written["num_tokens"] == 24
    arms = written["shapes"][str(TINY)]
    assert [arm["name"] for arm in arms] == ["dense", "grouped/natural", "grouped/balanced"]
    printed = capsys.readouterr().out
    assert f"{arms[1]['time']['median_ms']:.3f}" in printed
    assert main(["bench", "moe", "d16"]) == 2
