"""Text from outside cannot act on the terminal that shows it."""

import io
import json
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from data_pipelines.cli import main as data_main
from launch.submit import main as submit_main
from mythos.cli.main import main
from mythos.terminal import PlainStream, plain_output, printable

HOSTILE = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \x7f \u202e \ud83d a\rb"
PLAIN = "red \\x1b]0;title\\x07 \\x9b2J \\x7f \\u202e \\ud83d a\\rb"


def test_control_characters_are_removed_or_shown() -> None:
    assert printable(HOSTILE) == PLAIN
    assert printable("größe\tπ 🚀\n👩\u200d🔬") == "größe\tπ 🚀\n👩\u200d🔬"
    assert printable(PLAIN) == PLAIN


def test_streams_are_replaced_for_a_while_and_may_be_missing(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout
    with plain_output(), plain_output():
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
        assert sys.stdout.encoding == before.encoding
    assert sys.stdout is before
    assert capsys.readouterr() == (f"{PLAIN}\n", f"{PLAIN}\n")
    monkeypatch.setattr(sys, "stdout", None)
    with plain_output():
        print("nowhere")


def test_a_progress_bar_is_drawn_as_before() -> None:
    drawn, plain = io.StringIO(), io.StringIO()
    for stream in (drawn, PlainStream(plain)):
        for _ in tqdm(range(2), file=stream, bar_format="{desc}{bar}", desc="x", ncols=20, mininterval=0):
            pass
    assert plain.getvalue() == drawn.getvalue()
    assert plain.getvalue().count("\r") > 1


@pytest.mark.parametrize("command", ["train", "verify", "submit"])
def test_names_in_a_foreign_manifest_are_shown_plain(tmp_path: Path, capsys, command: str) -> None:
    sums = {"tokenizer_sha256": "", "inputs_sha256": ""}
    fields = {"version": 2, "dtype": "uint16", "vocab_size": 1, "separator_id": 0, "splits": {}, **sums}
    name = HOSTILE.removesuffix(" \ud83d a\rb")
    (tmp_path / "manifest.json").write_text(json.dumps(fields | {name: 1}))
    if command == "train":
        assert main(["train", "model=debug", f"data.dir={tmp_path}"]) == 2
    elif command == "verify":
        assert data_main(["verify", str(tmp_path)]) == 2
    else:
        assert submit_main(["model=debug", "cluster=torchrun", f"data.dir={tmp_path}", f"run.dir={tmp_path}/runs"]) == 2
    output = capsys.readouterr()
    assert PLAIN.removesuffix(" \\ud83d a\\rb") in output.err
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(output.out + output.err)
