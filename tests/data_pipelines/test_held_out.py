from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.corpus.documents import Document
from data_pipelines.packing.held_out import (
    HeldOutBytes,
    HeldOutFraction,
    default_held_out,
    split_by_bytes,
    split_documents,
)
from mythos.config.base import ConfigError


def documents_of(*texts: str) -> list[Document]:
    return [Document(str(index), text, "test", "none") for index, text in enumerate(texts)]


def split(documents: list[Document], num_bytes: int) -> tuple[list[str], list[str]]:
    parts = list(split_by_bytes(lambda: iter(documents), num_bytes))
    train, validation = (
        [part.document.text for part in parts if part.split == name] for name in ("train", "validation")
    )
    return train, validation


@given(texts=st.lists(st.text("aé日😀\n", min_size=1), min_size=1), num_bytes=st.integers(1, 60))
def test_both_parts_together_are_the_text(texts: list[str], num_bytes: int) -> None:
    documents = documents_of(*texts)
    whole = "".join(texts).encode()
    try:
        training, held_out = split(documents, num_bytes)
    except ConfigError:
        # Only a cut inside the first character leaves nothing to train on.
        assert num_bytes > len(whole) - len(texts[0][0].encode())
        return
    assert "".join(training + held_out).encode() == whole
    assert num_bytes <= len("".join(held_out).encode()) <= num_bytes + 3
    assert all(training + held_out)


def test_a_document_at_the_boundary_is_divided() -> None:
    assert split(documents_of("xyz", "uvw", "12"), 3) == (["xyz", "uv"], ["w", "12"])


def test_a_boundary_between_documents_divides_none() -> None:
    assert split(documents_of("xyz", "uvw"), 3) == (["xyz"], ["uvw"])


@pytest.mark.parametrize("num_bytes", [-1, 0, 6, 7])
def test_a_size_that_empties_a_split_is_refused_with_both_numbers(num_bytes: int) -> None:
    with pytest.raises(ConfigError, match=f"--held-out-bytes is {num_bytes}, but the text has 6 bytes"):
        split(documents_of("xyz", "uvw"), num_bytes)


@pytest.mark.parametrize(
    ("size", "num_bytes"), [(2_000, 200), (18_000, 1_800), (4_999_999, 499_999), (6_000_000, 500_000)]
)
def test_a_tenth_is_held_out_by_default_and_no_more_than_500_kb(size: int, num_bytes: int, tmp_path: Path) -> None:
    (tmp_path / "only.txt").write_text("a" * size)
    assert default_held_out(tmp_path) == HeldOutBytes(num_bytes=num_bytes)


def test_a_text_too_short_for_a_tenth_is_refused_with_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "only.txt").write_text("é" * 500)
    with pytest.raises(
        ConfigError, match=r"has 1,000 bytes of text, too few to hold out a tenth; give at least 2,000\.$"
    ):
        default_held_out(tmp_path)


def test_a_single_character_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="--held-out-bytes is 2, and that is all 4 bytes"):
        split(documents_of("😀"), 2)


def write_files(directory: Path, numbers: range) -> Path:
    directory.mkdir()
    for number in numbers:
        (directory / f"{number:04d}.txt").write_text(f"document {number}")
    return directory


def held_out_ids(directory: Path, fraction: float) -> set[str]:
    parts = split_documents(directory, HeldOutFraction(fraction=fraction))
    return {part.document.id for part in parts if part.split == "validation"}


def test_whether_a_document_is_held_out_does_not_depend_on_others(tmp_path: Path) -> None:
    all_ids = held_out_ids(write_files(tmp_path / "all", range(2000)), 0.1)
    # The mean of 2,000 draws at 0.1 is 200, the standard deviation 13.4.
    assert abs(len(all_ids) - 200) < 54
    half = held_out_ids(write_files(tmp_path / "half", range(0, 2000, 2)), 0.1)
    assert half == {name for name in all_ids if int(name[:4]) % 2 == 0}
    assert held_out_ids(tmp_path / "half", 0.02) < half


def test_a_fraction_that_holds_out_nothing_is_refused(tmp_path: Path) -> None:
    directory = write_files(tmp_path / "few", range(3))
    with pytest.raises(ConfigError, match="--held-out-fraction is 1e-06, which holds out 0 of 3 documents"):
        held_out_ids(directory, 1e-6)
    with pytest.raises(ConfigError, match=r"--held-out-fraction is 1\.5, but it must be above 0 and below 1"):
        HeldOutFraction(fraction=1.5)


def test_bytes_of_a_folder(tmp_path: Path) -> None:
    directory = write_files(tmp_path / "two", range(2))
    parts = list(split_documents(directory, HeldOutBytes(num_bytes=3)))
    assert [(part.split, part.document.id, part.document.text) for part in parts] == [
        ("train", "0000.txt", "document 0"),
        ("train", "0001.txt", "documen"),
        ("validation", "0001.txt", "t 1"),
    ]


def test_empty_files_and_documents_take_no_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_files(tmp_path / "two", range(1, 3))
    (directory / "0000.txt").write_text("")
    parts = list(split_documents(directory, HeldOutBytes(num_bytes=3)))
    assert [part.document.id for part in parts] == ["0001.txt", "0002.txt", "0002.txt"]
    assert capsys.readouterr().err == "mythos-data: 1 skipped, empty: 0000.txt.\n"
