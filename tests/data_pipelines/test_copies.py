from pathlib import Path

import pytest

from data_pipelines.packing import copies as module
from data_pipelines.packing.copies import Copies
from data_pipelines.packing.held_out import HeldOutBytes, HeldOutFraction, split_documents


def test_held_out_texts_that_are_in_training_are_counted_whatever_their_order_and_blanks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_CHUNK_NUM_CHARS", 3)
    copies = Copies()
    assert copies.sentences() == []
    copies.add("v1", "the king\r\nspeaks", is_held_out=True)
    copies.add("t1", "the king speaks\n", is_held_out=False)
    copies.add("t2", "the queen speaks", is_held_out=False)
    copies.add("v2", "the night", is_held_out=True)
    copies.add("v3", "the queen speaks", is_held_out=True)
    assert copies.ids() == ["v1", "v3"]
    (sentence,) = copies.sentences()
    assert sentence.startswith(
        "2 of 3 held-out texts are also in the training part, the first of them v1; the validation loss will be too low"
    )


@pytest.mark.parametrize("rule", [HeldOutFraction(fraction=0.5), HeldOutBytes(num_bytes=80)])
def test_a_split_with_copies_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: HeldOutFraction | HeldOutBytes
) -> None:
    for number in range(20):
        (tmp_path / f"{number:02d}.txt").write_text(f"document {number % 10:02d}")
    list(split_documents(tmp_path, rule))
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "held-out texts are also in the training part" in error


def test_a_split_without_copies_is_not_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(20):
        (tmp_path / f"{number:02d}.txt").write_text(f"document {number}")
    list(split_documents(tmp_path, HeldOutFraction(fraction=0.5)))
    assert capsys.readouterr().err == ""
