import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.corpus.config import CorpusConfig, DebianPackage, DebianSource, FilesSource
from data_pipelines.corpus.debian import fetch_debian
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.sources import plan, read_task
from mythos.config.base import ConfigError

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusConfig:
    """Corpus of one package, with a fake apt-get that has its version 1.0."""
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN" / "control").write_text(
        "Package: tool-doc\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
    )
    manual = package / "usr" / "share" / "doc" / "tool-doc"
    manual.mkdir(parents=True)
    (manual / "copyright").write_text("MIT")
    (manual / "index.html").write_text("<body><p>How to use the tool.</p></body>")
    (manual / "logo.svg").write_text("<svg/>")
    (manual / "link.html").symlink_to("/etc/passwd")
    archive = tmp_path / "tool-doc_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(package), str(archive)], check=True, capture_output=True)
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$4" = "" ] && [ "$3" = tool-doc=1.0 ] && exec cp {archive} .\n'
        "echo \"E: Version '2.0' for 'tool-doc' was not found\" >&2; exit 100\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    packages = {"tool-doc": DebianPackage(version="1.0", licence="MIT")}
    return CorpusConfig(source=str(tmp_path), sources={"docs": DebianSource(dir="debian", packages=packages)})


def test_packages_are_unpacked_and_only_documents_are_kept(corpus: CorpusConfig, tmp_path: Path) -> None:
    assert fetch_debian(corpus) == [tmp_path / "debian"]
    kept = sorted(path.name for path in (tmp_path / "debian" / "tool-doc").rglob("*") if not path.is_dir())
    assert kept == ["copyright", "index.html"]
    (task,) = plan(corpus)
    (document,) = read_task(corpus, task, Ledger())
    assert document.text.strip() == "How to use the tool."
    assert document.metadata == {"source": "docs", "licence": "MIT"}


def test_the_source_may_be_a_relative_path(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fetch_debian(replace(corpus, source="raw"))
    assert (tmp_path / "raw" / "debian" / "tool-doc" / "usr" / "share" / "doc" / "tool-doc" / "index.html").is_file()


def test_existing_packages_are_not_fetched_again(
    corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_debian(corpus)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fetch_debian(corpus) == [tmp_path / "debian"]


def test_a_missing_version_is_reported_and_leaves_nothing(corpus: CorpusConfig, tmp_path: Path) -> None:
    packages = {"tool-doc": DebianPackage(version="2.0", licence="MIT")}
    missing = CorpusConfig(source=corpus.source, sources={"docs": DebianSource(dir="debian", packages=packages)})
    message = (
        r"apt-get failed for tool-doc=2\.0 \(Version '2\.0' for 'tool-doc' was not found\); .* snapshot\.debian\.org"
    )
    with pytest.raises(ConfigError, match=message):
        fetch_debian(missing)
    assert list((tmp_path / "debian").iterdir()) == []


def test_missing_apt_is_reported(corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt-get is not installed"):
        fetch_debian(corpus)


def test_a_corpus_without_packages_is_refused() -> None:
    corpus = CorpusConfig(sources={"a": FilesSource(dir="a", licence="MIT")})
    with pytest.raises(ConfigError, match="none is of kind debian"):
        fetch_debian(corpus)
