"""The command ``mythos doctor``."""

import json
from pathlib import Path

import pytest

from mythos.cli.main import main

OF_A_RUN = {"disk space", "data", "tracker", "memory plan"}


def test_without_overrides_only_the_machine_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(["doctor", "--json", "found.json"])
    report = json.loads(Path("found.json").read_text())
    lines = capsys.readouterr().out.splitlines()
    assert status == (1 if report["status"] == "fails" else 0)
    assert [line.split()[0] for line in lines] == [one["status"] for one in report["findings"]]
    checks = {one["check"] for one in report["findings"]}
    assert not checks & OF_A_RUN
    assert checks >= {"python", "torch", "lightning", "deepspeed", "CUDA", "devices", "open files", "disk"}
    assert checks >= {"shared memory", "host memory", "extensions", "Triton's cache", "compiled blocks"}


def test_with_overrides_the_run_is_checked_too(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["model=debug", "parallel.device=cpu", f"run.dir={tmp_path}", "run.name=a"]
    main(["doctor", *overrides, f"data.dir={packed}"])
    passed = capsys.readouterr().out.splitlines()
    assert {line[9:27].strip() for line in passed} >= OF_A_RUN
    assert main(["doctor", *overrides, f"data.dir={tmp_path / 'nowhere'}"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fails")]
    assert any(line[9:27].strip() == "data" and "make it with mythos-data pack" in line for line in failed)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model.dimm=3"], "model.dimm: no such key"),
        (["--device", "abacus"], "'abacus' is not in the table"),
        (["optim=adamw", "data.micro_batch_size=8", "cluster.num_devices=2"], "set parallel=zero1 or parallel=ddp"),
    ],
)
def test_a_users_mistake_is_one_line(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    output = capsys.readouterr()
    assert sentence in output.err
    assert (output.out, output.err.count("\n")) == ("", 1)
