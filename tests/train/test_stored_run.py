"""A run that an earlier version of this schema wrote is sampled, resumed and exported as it was then."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from stored.make import ARCHIVE, EXPECTED, RUN, used

from mythos.cli.main import main
from mythos.config.records import SCHEMA


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / RUN


def test_the_stored_run_is_sampled_resumed_and_exported(tmp_path: Path) -> None:
    expected = json.loads(EXPECTED.read_text())
    result = used(tmp_path)
    assert result["tokens"] == expected["tokens"]
    assert result["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert list(result["losses"]) == list(expected["losses"])
    assert result["exported"] == expected["exported"]


def test_a_run_of_another_schema_is_refused_by_one_sentence(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a run from before the number: no schema in config.json, version 2 in the manifest, 1 in metrics.jsonl."""
    manifest = stored / "checkpoints" / "step-00000004" / "manifest.json"
    fields = json.loads(manifest.read_text())
    (stored / "metrics.jsonl").write_text('{"schema": 1}\n{"step": 1, "time": 0, "tokens": 1}\n')
    fields["version"] = 2
    fields["config"]["optim"]["router_bias_rate"] = 1e-3
    manifest.write_text(json.dumps(fields))
    commands = {
        ("evaluate", str(stored)): f"{manifest}: written by schema 2",
        ("sample", str(stored), "--prompt", "x"): f"{manifest}: written by schema 2",
        ("export", str(stored), "--to", str(stored.parent / "out")): f"{manifest}: written by schema 2",
        ("consolidate", str(stored), "--to", str(stored.parent / "all")): f"{manifest}: written by schema 2",
        ("report", str(stored)): f"{stored / 'metrics.jsonl'}: written by schema 1",
    }
    for command, sentence in commands.items():
        assert main(list(command)) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"mythos: {sentence}, but this version of mythos reads schema {SCHEMA}; ")
        assert error.count("\n") == 1


def test_a_checkpoint_of_another_schema_is_not_trained_over(stored: Path, packed: Path, capsys) -> None:
    manifest = stored / "checkpoints" / "step-00000004" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"version": {SCHEMA}', '"version": 2'))
    shutil.rmtree(stored.parent.parent / "data")
    overrides = ["model=debug", "run.name=stored", f"run.dir={stored.parent}", f"data.dir={packed}", "resume=auto"]
    assert main(["train", *overrides, "parallel.device=cpu", "data.seq_len=32"]) == 2
    assert f"{manifest}: written by schema 2, but this version" in capsys.readouterr().err
