import sys
from pathlib import Path

import pytest

from data_pipelines.cli import main
from data_pipelines.corpus.config import (
    CorpusConfig,
    DebianSource,
    FilesSource,
    GopherQuality,
    HubSource,
    LangidFilter,
    MinHash,
    NGramDecontamination,
)
from data_pipelines.corpus.load import load_corpus
from data_pipelines.corpus.sources import plan
from mythos.config.base import ConfigError
from mythos.config.load import default_config_dir

SHIPPED = sorted(path.stem for path in (default_config_dir() / "corpus").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_corpus_validates(name: str) -> None:
    corpus = load_corpus(name, ["source=somewhere"])
    assert corpus.source == "somewhere"
    assert all(source.licence for source in corpus.sources.values() if isinstance(source, HubSource))


def test_the_measurement_corpus_is_the_documentation_and_books() -> None:
    documentation, measurement = load_corpus("documentation", []), load_corpus("measurement", [])
    assert set(measurement.sources) - set(documentation.sources) == {"books"}
    source = measurement.sources["documentation"]
    assert isinstance(source, DebianSource)
    assert len(source.packages) == 14
    assert measurement.quality == documentation.quality


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shard_byte=5", "shard_byte: no such key; did you mean 'shard_bytes'?"),
        ("sorce=x", "sorce: no such key; did you mean 'source'?"),
        ("language.kind=english", "language.kind: 'english' was given; it is one of 'none', 'langid', 'fasttext'."),
        ("decontamination.num_words=0", "num_words: input should be greater than or equal to 1, but 0 was given."),
        ("sources.more.kind=files", "sources.more.dir: a value is needed and none was given."),
    ],
)
def test_an_error_names_its_path(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_corpus("documentation", [override])
    assert message in str(error.value)


def test_every_key_can_be_set_whether_the_yaml_mentions_it_or_not(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("sources: {a: {kind: files, dir: a, licence: MIT}}\n")
    values = {
        "source": "data/raw",
        "fix_encoding": False,
        "max_characters": 1000,
        "language": LangidFilter(languages=("de",)),
        "quality": (GopherQuality(min_words=3),),
        "exact_duplicates": "keep",
        "near_duplicates": MinHash(num_buckets=3),
        "decontamination": NGramDecontamination(dir="evals"),
        "shard_bytes": 5000,
        "sources": {"b": FilesSource(dir="b", licence="MIT")},
    }
    assert values.keys() == CorpusConfig.__dataclass_fields__.keys()
    overrides = [
        "source=data/raw",
        "fix_encoding=false",
        "max_characters=1000",
        "language={kind: langid, languages: [de]}",
        "quality=[{kind: gopher_quality, min_words: 3}]",
        "exact_duplicates=keep",
        "near_duplicates={kind: minhash, num_buckets: 3}",
        "decontamination={kind: n_grams, dir: evals}",
        "shard_bytes=5000",
    ]
    for override in overrides:
        name = override.partition("=")[0]
        assert getattr(load_corpus(str(path), [override]), name) == values[name]
    assert load_corpus(str(path), ["source=null"]).source is None
    assert load_corpus(str(path), ["+source=x"]).source == load_corpus(str(path), ["++source=x"]).source == "x"
    (both,) = [load_corpus(str(path), ["sources.b={kind: files, dir: b, licence: MIT}"])]
    assert both.sources["b"] == values["sources"]["b"]


def test_a_misspelt_corpus_gets_a_suggestion(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["clean", "fineweb-edo", "--to", str(tmp_path / "out")]) == 2
    assert "fineweb-edo.yaml: no such file; did you mean 'fineweb-edu'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_folders_are_named_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"documentation\.dir: .*debian/anarchism: no such folder; run mythos"):
        plan(load_corpus("documentation", [f"source={tmp_path}"]))
    (tmp_path / "mine.yaml").write_text("source: null\nsources: {a: {kind: files, dir: a, licence: MIT}}\n")
    corpus = load_corpus(str(tmp_path / "mine.yaml"), [f"source={tmp_path}"])
    with pytest.raises(ConfigError, match=r"sources\.a\.dir: .*/a: no such folder; put the files there or set source="):
        plan(corpus)
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match=r"sources\.a: .*/a holds no file \*\*/\* of a known kind"):
        plan(corpus)


def test_a_missing_extra_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "data_pipelines.corpus.build", None)
    assert main(["clean", "documentation", "--to", str(tmp_path / "out")]) == 2
    command = "pip install -e '.[data]' in a clone of Mythos"
    assert capsys.readouterr().err.endswith(f"is not installed; run {command}.\n")
