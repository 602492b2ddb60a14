import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mythos.config.base import ConfigError
from mythos.data.examples import read_examples
from mythos.data.manifest import Manifest, Shard, Split, read_manifest, write_manifest
from mythos.data.shards import open_split
from mythos.data.verification import verify

SHARD = Shard(
    tokens_file="train-00000.tokens",
    tokens_sha256="a",
    documents_file="train-00000.documents",
    documents_sha256="b",
    num_tokens=10,
    num_documents=2,
    num_bytes=30,
)
MANIFEST = Manifest(
    dtype="uint16",
    vocab_size=300,
    separator_id=0,
    tokenizer_sha256="c",
    inputs_sha256="d",
    splits={"train": Split(shards=(SHARD, SHARD))},
)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    assert read_manifest(tmp_path).splits["train"].num_tokens == 20


def test_the_error_for_a_missing_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder; make it with mythos-data pack"):
        read_manifest(tmp_path / "nothing")


def test_the_error_for_a_folder_without_a_manifest_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no manifest\.json.*mythos-data pack --to"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: "{", "not a JSON object with a version"),
        (lambda raw: "[1]", "not a JSON object with a version"),
        (lambda raw: json.dumps(raw | {"version": None}), "not a JSON object with a version"),
        (lambda raw: json.dumps(raw | {"version": 0}), "version"),
        (lambda raw: json.dumps(raw | {"vocab_size": -1}), "vocab_size.*-1"),
        (lambda raw: json.dumps(raw | {"dtype": "int8"}), "dtype.*int8"),
        (lambda raw: json.dumps({key: raw[key] for key in raw if key != "splits"}), "splits"),
    ],
)
def test_damage_is_reported_in_one_line(tmp_path: Path, damage: Callable, reason: str) -> None:
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / "manifest.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(ConfigError, match=rf"is damaged \(.*{reason}.*mythos-data pack --overwrite") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_newer_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 7, "unknown": 1}))
    with pytest.raises(ConfigError, match="format version 7, but this Mythos reads up to 2; update"):
        read_manifest(tmp_path)


def test_reading_a_manifest_needs_neither_torch_nor_numpy() -> None:
    program = "import sys, mythos.data.manifest; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("name", ["/etc/passwd", "../other", "a/../../b", "link"])
@pytest.mark.parametrize("field", ["tokens_file", "documents_file", "ignored_file", "examples_file"])
def test_a_manifest_that_names_files_outside_is_refused(tmp_path: Path, field: str, name: str) -> None:
    directory = tmp_path / "packed"
    directory.mkdir()
    (directory / "link").symlink_to("/etc/passwd")
    write_manifest(directory, MANIFEST)
    path = directory / "manifest.json"
    raw = json.loads(path.read_text())
    split = raw["splits"]["train"]
    (split if field == "examples_file" else split["shards"][1])[field] = name
    path.write_text(json.dumps(raw))
    for read in (read_manifest, verify, lambda directory: open_split(directory, "train"), read_examples):
        with pytest.raises(ConfigError, match=rf"names the file '{name}', which does not lie in"):
            read(directory)


def test_a_dataset_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    write_manifest(tmp_path / "packed", MANIFEST)
    (tmp_path / "link").symlink_to(tmp_path / "packed")
    assert read_manifest(tmp_path / "link") == MANIFEST
