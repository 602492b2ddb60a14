import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from data_pipelines.cli import main


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_text_becomes_a_verified_dataset(
    text_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--text", text_directory, "--held-out-bytes", 1000, "--to", tmp_path / "packed"]
    assert run("tokenizer", "--vocab-size", 300, *common) == 0
    assert run("pack", *common) == 0
    assert run("verify", tmp_path / "packed") == 0
    output = capsys.readouterr().out
    assert "1,000 bytes" in output
    assert output.endswith("packed matches its manifest.\n")


def test_an_error_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--held-out-bytes", 1000, "--to", tmp_path / "packed"]
    assert run("tokenizer", "--vocab-size", 300, "--text", tmp_path / "nothing", *common) == 2
    error = capsys.readouterr().err
    kinds = "a .txt, .md, .jsonl (also with .gz or .zst) or .parquet file, a folder of these, or OWNER/NAME on the Hub"
    assert error == f"mythos-data: {tmp_path}/nothing: no such file or folder; name {kinds}.\n"
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_target_is_one_line(
    text_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    common = ["--text", text_directory, "--held-out-bytes", 1000, "--to", tmp_path / "file" / "packed"]
    assert run("tokenizer", "--vocab-size", 300, *common) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "; check the path, its permissions and the free space." in error[0]


def test_verify_reports_damage(text_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--text", text_directory, "--held-out-bytes", 1000, "--to", tmp_path / "packed"]
    run("tokenizer", "--vocab-size", 300, *common)
    run("pack", *common)
    os.truncate(tmp_path / "packed" / "train-00000.tokens", 10)
    assert run("verify", tmp_path / "packed") == 2
    assert "train-00000.tokens has 10 bytes, but the manifest states" in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, data_pipelines.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'numpy', 'tokenizers', 'pydantic'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert result.returncode == 0
    assert b"verify" in result.stdout


def test_a_corpus_is_fitted_into_windows(
    text_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = ["--text", text_directory, "--held-out-bytes", 2000]
    common = [*held_out, "--to", tmp_path / "packed"]
    special = ["--split-digits", "--special-tokens", "<|user|>"]
    assert run("tokenizer", "--vocab-size", 300, *special, *common) == 0
    assert run("pack", "--pack", "best-fit", "--seq-len", 64, "--workers", 1, *common) == 0
    assert "windows of 64, " in capsys.readouterr().out
    assert run("pack", "--pack", "best-fit", *common) == 2
    assert (
        "--pack is best-fit and --seq-len is None; best-fit, and only best-fit, needs a length."
        in capsys.readouterr().err
    )
    assert run("measure", "--text", text_directory, tmp_path / "packed") == 0
    assert "bytes/token" in capsys.readouterr().out


def test_a_task_is_written_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--num-train", 40, "--num-test", 20, "--seed", 0, "--to", tmp_path / "hops"]
    assert run("tasks", "p-hop", "--hops", 1, 2, 4, "--length", 32, *options) == 0
    assert "train: 40 problems in 40 windows of 36 tokens" in capsys.readouterr().out
    assert run("verify", tmp_path / "hops") == 0
    assert run("tasks", "p-hop", "--hops", 0, "--length", 32, *options) == 2
    assert "difficulties.0: input should be greater than or equal to 1" in capsys.readouterr().err


def test_the_way_in_for_html_works_as_the_error_describes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    Path("raw", "a.html").write_text("".join(f"<p>the king speaks {n} times</p>\n" for n in range(50)))
    common = ["--held-out-bytes", 100, "--vocab-size", 262, "--to", "packed"]
    assert run("tokenizer", "--text", "raw", *common) == 2
    error = capsys.readouterr().err
    (sources,) = re.findall("'(sources: .*?)'", error)
    Path("mine.yaml").write_text(sources)
    assert "run mythos-data clean mine.yaml --to CORPUS, and name CORPUS instead." in error
    assert run("clean", "mine.yaml", "--to", "CORPUS", "--workers", 0) == 0
    assert run("tokenizer", "--text", "CORPUS", *common) == 0


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_rows_become_a_verified_dataset_of_the_same_tokens(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"the king speaks {n} times of {'night' * (n % 3)} and é\n" for n in range(50)]
    (tmp_path / "plain").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "plain" / f"{number:02d}.txt").write_text(text)
    lines = "".join(json.dumps({"n": n, "body": text}) + "\n" for n, text in enumerate(texts)).encode()
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"n": range(50), "body": texts}), tmp_path / name)
    else:
        compress = {"gz": gzip.compress, "zst": zstandard.compress}.get(name[8:], bytes)
        (tmp_path / name).write_bytes(compress(lines))
    held_out = ["--held-out-bytes", 100]
    for text, to in ((["plain"], "expected"), ([name, "--text-column", "body"], "packed")):
        common = ["--text", tmp_path / text[0], *text[1:], *held_out, "--to", tmp_path / to]
        assert run("tokenizer", "--vocab-size", 270, *common) == 0
        assert run("pack", "--workers", 1, *common) == 0
    for file in ("tokenizer.json", "train-00000.tokens", "train-00000.documents", "validation-00000.tokens"):
        assert (tmp_path / "packed" / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()
    assert run("verify", tmp_path / "packed") == 0
    capsys.readouterr()
    assert run("tokenizer", "--text", tmp_path / name, "--to", tmp_path / "other") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "row 1 has no column 'text'" in error
    assert f"{name}: " in error
    assert not (tmp_path / "other").exists()
