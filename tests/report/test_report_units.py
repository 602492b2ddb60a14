import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.load import load
from mythos.data.kept import keep_tokenizer
from mythos.data.manifest import data_fingerprint, read_manifest, validation_bytes_per_token
from mythos.report.comparable import comparable, in_bits_per_byte
from mythos.report.read import Run, read_run
from mythos.report.units import BITS, NATS, Text, read_text

MakeRun = Callable[..., Path]


def test_a_run_records_the_bytes_per_token_of_its_held_out_text(packed: Path, tmp_path: Path) -> None:
    split = read_manifest(packed).splits["validation"]
    expected = 6000 / split.num_tokens
    assert split.num_bytes == 6000
    config = load(["model=debug", f"data.dir={packed}"])
    assert read_text(tmp_path, config) is None
    keep_tokenizer(tmp_path, [str(packed)], data_fingerprint([str(packed)]))
    text = read_text(tmp_path, config)
    assert text.bytes_per_token == pytest.approx(expected, rel=1e-12)
    assert text.bits_per_nat == pytest.approx(1 / math.log(2) / expected, rel=1e-12)


def test_a_run_of_an_earlier_version_reads_them_from_its_data_if_these_are_the_same(
    packed: Path, tmp_path: Path
) -> None:
    path = tmp_path / "data.json"
    keep_tokenizer(tmp_path, [str(packed)], data_fingerprint([str(packed)]))
    kept = json.loads(path.read_text())
    recorded = kept.pop("validation_bytes_per_token")
    path.write_text(json.dumps(kept))
    assert read_text(tmp_path, load(["model=debug", f"data.dir={packed}"])).bytes_per_token == recorded
    assert read_text(tmp_path, load(["model=debug", f"data.dir={tmp_path}"])).bytes_per_token is None
    path.write_text(json.dumps(kept | {"data_fingerprint": "0" * 16}))
    assert read_text(tmp_path, load(["model=debug", f"data.dir={packed}"])).bytes_per_token is None
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ConfigError, match=r"data\.json: damaged; resume the run"):
        read_text(tmp_path, load(["model=debug"]))


def test_bytes_per_token_of_a_mixture_are_weighed_as_its_held_out_windows(packed: Path) -> None:
    manifest = packed / "manifest.json"
    other = packed.parent / "other"
    other.mkdir(exist_ok=True)
    raw = json.loads(manifest.read_text())
    raw["splits"]["validation"]["shards"][0]["num_bytes"] *= 3
    (other / "manifest.json").write_text(json.dumps(raw))
    one = validation_bytes_per_token([str(packed)], (1,))
    mixed = validation_bytes_per_token([str(packed), str(other)], (3, 1))
    assert mixed == pytest.approx((3 * one + 3 * one) / 4)
    raw["splits"]["validation"]["examples_file"] = "problems.jsonl"
    (other / "manifest.json").write_text(json.dumps(raw))
    assert validation_bytes_per_token([str(packed), str(other)], (3, 1)) is None
    assert validation_bytes_per_token([str(packed), str(other)], (1, 0)) == one


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    return read_run(make_run(num_steps=100, trace_every=50, is_evaluated=True))


def with_text(run: Run, tokenizer: str, bytes_per_token: float | None = 4.0) -> Run:
    return run._replace(text=Text(tokenizer, bytes_per_token))


def test_only_losses_change_their_unit(run: Run) -> None:
    factor = 1 / (4 * math.log(2))
    result = in_bits_per_byte(with_text(run, "x"))
    assert (run.loss_unit, result.loss_unit) == (NATS, BITS)
    for name, series in run.series.items():
        is_loss = name == records.TRAIN_LOSS or name.startswith(("val/loss/", "loop/loss/"))
        np.testing.assert_allclose(result.series[name].values, series.values * (factor if is_loss else 1), rtol=1e-12)
    before, after = run.evaluations["depth-sweep"], result.evaluations["depth-sweep"]
    for key in ("loss", "frozen_loss"):
        np.testing.assert_allclose(after[key], np.array(before[key]) * factor, rtol=1e-12)
    assert after["rules"][0]["loss"] == pytest.approx(before["rules"][0]["loss"] * factor)
    assert after["accuracy"] == before["accuracy"]
    assert result.in_nats.series is run.series


@pytest.mark.parametrize(
    ("texts", "is_converted"),
    [
        ((None, None), False),
        (("x", "x"), False),
        (("x", None), False),  # of one vocabulary size
        (("x", "y"), True),
    ],
)
def test_runs_are_converted_if_their_tokenizers_differ(run: Run, texts, is_converted: bool) -> None:
    runs = {str(index): run if text is None else with_text(run, text) for index, text in enumerate(texts)}
    result = comparable(runs)
    assert (result.note is not None) == is_converted
    assert {each.loss_unit for each in result.runs.values()} == {BITS if is_converted else NATS}


def test_vocabularies_decide_where_a_tokenizer_was_not_recorded(make_run: MakeRun, run: Run) -> None:
    larger = read_run(make_run("model.vocab_size=4096", num_steps=100, name="larger"))
    result = comparable({"a": with_text(run, "x"), "b": larger})
    assert "2 different tokenizers" in result.note
    assert "The losses of b are left out" in result.note
    assert np.isnan(result.runs["b"].series[records.validation_loss(8)].values).all()
    same = comparable({"a": with_text(run, "x"), "b": with_text(larger, "x")})  # padded to another size
    assert same.note is None
