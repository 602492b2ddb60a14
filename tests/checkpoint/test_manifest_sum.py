"""A manifest has its own sum: whatever is altered in it is detected before any of it is used."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers import empty_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from mythos.checkpoint.manifest import SUM, Manifest, manifest_text, parse_manifest, read_manifest
from mythos.checkpoint.store import newest
from mythos.config.base import ConfigError
from mythos.config.records import SCHEMA
from mythos.config.schema import OtherSchema

MANIFEST = Manifest(
    step=300,
    tokens=9_830_400,
    next_sample=9600,
    config={"optim": {"lr": 1e-05, "betas": [0.9, 0.95]}, "run": {"name": "größe", "seed": 0}, "resume": None},
    fingerprint="0123456789abcdef",
    data_fingerprint="fedcba9876543210",
    code_version="0.1.0",
    layout={"kind": "deepspeed", "world_size": 2, "zero_stage": 1},
    checksums={"embedding.weight|weight": "00ff00ff00ff00ff"},
    files={"state.json": "0" * 64},
    metrics={"validation_loss": 2.5},
)
TEXT = manifest_text(asdict(MANIFEST)).encode()


def is_detected(text: bytes) -> bool:
    """Whether the text is refused as damaged; as another schema it would end the start instead of being skipped."""
    try:
        parse_manifest(text, "manifest")
    except ConfigError as error:
        return not isinstance(error, OtherSchema)
    return False


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert parse_manifest(TEXT, "manifest") == MANIFEST
    assert json.loads(TEXT).keys() - asdict(MANIFEST).keys() == {SUM}
    assert manifest_text(json.loads(TEXT)).encode() == TEXT


def test_every_flipped_bit_is_detected() -> None:
    flipped = bytearray(TEXT)
    undetected = []
    for bit in range(8 * len(TEXT)):
        flipped[bit // 8] ^= 1 << bit % 8
        if not is_detected(bytes(flipped)):
            undetected.append(bit)
        flipped[bit // 8] ^= 1 << bit % 8
    assert undetected == []


@given(st.integers(0, len(TEXT) - 1), st.integers(0, 200), st.binary(max_size=200))
def test_every_other_alteration_is_detected(start: int, length: int, content: bytes) -> None:
    altered = TEXT[:start] + content + TEXT[start + length :]
    assert altered == TEXT or is_detected(altered)


@pytest.mark.parametrize("field", ["step", "checksums", "version", SUM])
def test_an_altered_field_makes_the_checkpoint_before_it_the_newest(tmp_path: Path, field: str) -> None:
    empty_checkpoint(tmp_path, 1)
    path = empty_checkpoint(tmp_path, 2) / "manifest.json"
    raw = json.loads(path.read_text())
    altered = {"step": 3, "checksums": {"a|weight": "0" * 16}, "version": SCHEMA - 1, SUM: "0" * 64}[field]
    path.write_text(json.dumps(raw | {field: altered}, indent=1))
    warnings: list[str] = []
    _, manifest = newest(tmp_path, warnings.append)
    assert manifest.step == 1
    assert warnings == [
        f"{path}: damaged; it was altered since it was written (it differs from its own SHA-256). Trying the "
        "checkpoint before it."
    ]


def test_manifests_from_before_the_sum_are_read(tmp_path: Path) -> None:
    path = empty_checkpoint(tmp_path, 1) / "manifest.json"
    raw = json.loads(path.read_text())
    del raw[SUM]
    path.write_text(json.dumps(raw, indent=1))
    assert read_manifest(path.parent).step == 1
    path.write_text(json.dumps(raw | {"version": SCHEMA - 1, "of_that_version": 1}, indent=1))
    with pytest.raises(OtherSchema, match=f"written by schema {SCHEMA - 1}, but"):
        read_manifest(path.parent)


def test_fields_of_later_versions_of_this_schema_are_read_over() -> None:
    later = manifest_text(asdict(MANIFEST) | {"field_of_a_later_version": [1]})
    assert parse_manifest(later.encode(), "manifest") == MANIFEST
