import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipelines.cli import main
from data_pipelines.corpus.build import build_corpus
from data_pipelines.corpus.config import (
    CorpusConfig,
    FasttextFilter,
    FilesSource,
    GopherQuality,
    MinHash,
    NGramDecontamination,
    NoMinHash,
)
from data_pipelines.corpus.documents import read_documents
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.sources import plan, read_task
from data_pipelines.corpus.steps import Step, run_step
from data_pipelines.lock import locked
from mythos.config.base import ConfigError
from mythos.files import remove

CORPUS = CorpusConfig(
    sources={
        "rows": FilesSource(dir="rows", licence="MIT", id_column="id", licence_column="licence"),
        "notes": FilesSource(dir="notes", licence="CC0-1.0"),
    },
    quality=(GopherQuality(min_words=20),),
    near_duplicates=MinHash(num_buckets=3),
    decontamination=NGramDecontamination(dir="evals", window_characters=200),
    shard_bytes=8_000,
)
EVALUATION = "how many of the old coins that the keeper found below the tower were made of silver"


def sentence(generator: random.Random) -> str:
    middle = " ".join(generator.choices(["river", "stone", "winter", "letter", "garden", "soldier", "window"], k=9))
    return f"The {middle} that he had to see with his own eyes went to the {generator.randrange(10**6)} of it."


@pytest.fixture
def source(tmp_path: Path) -> Path:
    generator = random.Random(0)
    texts = ["\n".join(sentence(generator) for _ in range(12)) for _ in range(60)]
    texts[20] = texts[3]
    texts[30] = texts[4].replace("river", "stream", 1)
    texts[40] = f"{texts[40]}\n{EVALUATION}."
    folder = tmp_path / "raw"
    for name in ("rows", "notes", "evals"):
        (folder / name).mkdir(parents=True)
    for file in range(6):
        rows = [{"text": texts[n], "id": f"row{n}", "licence": "Zlib" if n % 2 else None} for n in range(file, 60, 6)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "rows" / f"{file}.jsonl").write_text(lines)
    (folder / "notes" / "a.txt").write_text("\r\n".join(sentence(generator) for _ in range(40)))
    (folder / "notes" / "hollow.txt").write_text("")
    (folder / "notes" / "short.md").write_text("Too short.")
    (folder / "evals" / "coins.jsonl").write_text(json.dumps({"query": EVALUATION}))
    return folder


def with_source(source: Path, **changes: object) -> CorpusConfig:
    fields = {name: getattr(CORPUS, name) for name in CORPUS.__dataclass_fields__}
    return CorpusConfig(**(fields | {"source": str(source)} | changes))


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name[0] != "."}


def test_every_document_is_kept_or_counted(source: Path, tmp_path: Path) -> None:
    report = build_corpus(with_source(source), tmp_path / "out", 0)
    documents = list(read_documents(tmp_path / "out"))
    assert report["kept"]["documents"] == len(documents) == 59
    assert report["kept"]["bytes"] == sum(len(document.text.encode()) for document in documents)
    steps = report["steps"]
    assert steps["clean"]["read"]["documents"] == 62
    assert {reason: drop["documents"] for reason, drop in steps["clean"]["dropped"].items()} == {"gopher_short_doc": 1}
    assert steps["clean"]["skipped"] == {"empty file": 1}
    assert report["problems"] == ["notes/hollow.txt: empty file"]
    assert steps["exact-duplicates"]["dropped"]["exact duplicate"]["documents"] == 1
    assert steps["near-duplicates"]["dropped"]["near duplicate"]["documents"] == 1
    assert steps["decontaminate"]["noted"]["documents that matched before"] == 1
    assert not any(EVALUATION in document.text for document in documents)
    licences = {document.licence for document in documents}
    assert licences == {"MIT", "Zlib", "CC0-1.0"} == set(report["licences"])
    assert sum(part["documents"] for part in report["sources"].values()) == 59
    assert {document.id for document in documents if document.source == "notes"} == {"notes/a.txt"}


def test_hidden_files_are_no_text_and_are_named(source: Path, tmp_path: Path) -> None:
    expected = build_corpus(with_source(source), tmp_path / "before", 0)["kept"]
    for name in ("rows/.git/0.jsonl", "notes/.ipynb_checkpoints/a-checkpoint.txt", "notes/._a.txt", "evals/.old/x.txt"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(f'{{"text": "{EVALUATION}"}}\n')
    report = build_corpus(with_source(source), tmp_path / "out", 0)
    assert report["kept"] == expected
    assert report["steps"]["plan"] == {"skipped": {"hidden": 3}}
    assert report["problems"][:3] == ["rows/.git: hidden", "notes/._a.txt: hidden", "notes/.ipynb_checkpoints: hidden"]
    assert "evaluation sets/.old: hidden" in report["problems"]
    named = with_source(source, sources={"git": FilesSource(dir="rows", licence="MIT", pattern=".git/*")})
    assert [task.files[0][0] for task in plan(named)] == [".git/0.jsonl"]


def test_repeating_a_request_changes_nothing_and_another_request_is_refused(source: Path, tmp_path: Path) -> None:
    first = build_corpus(with_source(source), tmp_path / "out", 0)
    before = content(tmp_path / "out")
    moved = source.rename(tmp_path / "moved")
    assert build_corpus(with_source(moved), tmp_path / "out", 0) == first
    assert content(tmp_path / "out") == before
    with pytest.raises(ConfigError, match=r"another request \(quality\.0.*|exact_duplicates: drop -> keep"):
        build_corpus(with_source(moved, exact_duplicates="keep"), tmp_path / "out", 0)
    changed = r"another request \(files: \w+ -> \w+\); give --to a new folder"
    (moved / "evals" / "more.txt").write_text("another set")
    with pytest.raises(ConfigError, match=changed):
        build_corpus(with_source(moved), tmp_path / "out", 0)
    (moved / "evals" / "more.txt").unlink()
    (moved / "notes" / "b.txt").write_text("new")
    with pytest.raises(ConfigError, match=changed):
        build_corpus(with_source(moved), tmp_path / "out", 0)


def test_processes_change_nothing(source: Path, tmp_path: Path) -> None:
    corpus = with_source(source, exact_duplicates="keep", near_duplicates=NoMinHash())
    build_corpus(corpus, tmp_path / "alone", 0)
    build_corpus(corpus, tmp_path / "two", 2)
    assert content(tmp_path / "alone") == content(tmp_path / "two")


PROGRAM = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import test_corpus_build as t
from data_pipelines.corpus import steps
number = [0]
finish = steps._finish
def killing(work, output, index):
    if number[0] == int(sys.argv[3]):
        # Half of a shard is on disk under a temporary name when the process is killed.
        (output / f".{index:05d}.jsonl.zst.tmp-{os.getpid()}").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    number[0] += 1
    finish(work, output, index)
steps._finish = killing
t.build_corpus(t.with_source(Path(sys.argv[1])), Path(sys.argv[2]), 0)
"""


def test_a_killed_run_resumes_where_it_stopped(source: Path, tmp_path: Path) -> None:
    build_corpus(with_source(source), tmp_path / "whole", 0)
    target = tmp_path / "killed"
    for after in (2, 9, 14):
        arguments = [str(source), str(target), str(after), str(Path(__file__).parent)]
        command = [sys.executable, "-c", PROGRAM, *arguments]
        result = subprocess.run(command, check=False, capture_output=True)
        assert result.returncode == -signal.SIGKILL, result.stderr
        with pytest.raises(ConfigError, match="is not finished"):
            next(read_documents(target))
    finished = {path: path.stat().st_mtime_ns for path in (target / "stages").rglob("0*.json")}
    assert len(finished) == 2 + 9 + 14
    build_corpus(with_source(source), target, 0)
    assert content(target) == content(tmp_path / "whole")
    assert not list(target.rglob("*.tmp-*"))


def test_workers_exit_when_their_run_is_killed(source: Path, tmp_path: Path, workers_end_with) -> None:
    program = "import test_corpus_build as t; t.run_step(t.Step('sleep', 2, t.mark_and_sleep), t.Path('out'), 2)"
    workers_end_with(program, [tmp_path / f"{index}.pid" for index in range(2)])


def mark_and_sleep(output: Path, index: int) -> object:
    (output.parent / f"{index}.pid").write_text(str(os.getpid()))
    time.sleep(3600)
    raise AssertionError("the worker outlived its run")


def die(output: Path, index: int) -> object:
    os._exit(9)


def test_a_dead_worker_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clean: a worker process died.*run again with fewer --workers"):
        run_step(Step("clean", 2, die), tmp_path, 2)


def test_a_full_disk_leaves_no_partial_shard_and_the_run_resumes_later(source: Path, tmp_path: Path) -> None:
    limited = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[3]); from pathlib import Path\n"
        "import test_corpus_build as t\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "t.build_corpus(t.with_source(Path(sys.argv[1])), Path(sys.argv[2]), 0)\n"
    )
    arguments = [str(source), str(tmp_path / "out"), str(Path(__file__).parent)]
    result = subprocess.run([sys.executable, "-c", limited, *arguments], check=False, capture_output=True)
    assert b"File too large" in result.stderr
    assert not list((tmp_path / "out").rglob("*.jsonl.zst"))
    assert build_corpus(with_source(source), tmp_path / "out", 0)["kept"]["documents"] == 59


def test_a_file_that_disappears_is_named_and_finished_shards_are_kept(source: Path, tmp_path: Path) -> None:
    corpus = with_source(source)
    tasks = plan(corpus)
    (source / "rows" / "0.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"sources\.rows: .*0\.jsonl was there when the run began and is gone"):
        list(read_task(corpus, tasks[0], Ledger()))


def test_two_runs_do_not_share_a_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(ConfigError, match="another run is at work"):
        build_corpus(with_source(source), tmp_path / "out", 0)


def test_missing_inputs_are_reported_before_any_work(source: Path, tmp_path: Path) -> None:
    remove(source / "evals")
    with pytest.raises(ConfigError, match=r"decontamination\.dir: .* holds no evaluation set"):
        build_corpus(with_source(source), tmp_path / "out", 0)
    language = FasttextFilter(model="nowhere.bin")
    with pytest.raises(ConfigError, match=r"language\.model: nowhere\.bin: no such file"):
        build_corpus(with_source(source, language=language), tmp_path / "out", 0)
    with pytest.raises(ConfigError, match="--workers is -1; give the number of processes"):
        build_corpus(with_source(source), tmp_path / "out", -1)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_not_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files; give --to a new folder"):
        build_corpus(with_source(source), tmp_path, 0)


def test_the_command_builds_from_a_yaml(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(
        "source: null\nsources:\n  notes: {kind: files, dir: notes, licence: MIT}\nquality: [{kind: fineweb}]\n"
    )
    command = [
        "clean",
        str(tmp_path / "mine.yaml"),
        f"source={source}",
        "--to",
        str(tmp_path / "out"),
        "--workers",
        "0",
    ]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "clean: " in output
    assert "clean: skipped, empty file: 1\n" in output
    assert output.endswith("see report.json there.\n")
    assert (tmp_path / "out" / "report.json").exists()
