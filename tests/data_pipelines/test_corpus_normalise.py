import time

import pytest
from datatrove.data import Document

from data_pipelines.corpus.normalise import cut, normalise

RUNS = (" ", "\t", "\u00a0", " \t", "\n", " \n", "\n ", "\r", "\0", "\x1b[", "\x1b[1;", "Ã©", "Â", "&#")


def test_line_ends_controls_and_blank_lines() -> None:
    text = "\n\none  \r\n\r\n\r\n\r\n\ttwo\x00\x07\rthree\ufeff\n"
    assert normalise(text, fix_encoding=False) == "one\n\n\ttwo\nthree"


def test_wrongly_decoded_text_is_repaired_and_code_is_unchanged() -> None:
    assert normalise("cafÃ©", fix_encoding=True) == "café"
    assert normalise("cafÃ©", fix_encoding=False) == "cafÃ©"
    code = 'if (a &lt; b && c != "x") {\n    return “q”;\n}'
    assert normalise(code, fix_encoding=True) == code


def test_lone_surrogates_are_removed() -> None:
    assert normalise("a\ud800b", fix_encoding=False) == "ab"


def test_normalising_twice_changes_nothing() -> None:
    once = normalise("a \r\n\n\n\n b\x0b\u00a0\n", fix_encoding=True)
    assert normalise(once, fix_encoding=True) == once


def test_long_texts_are_cut_at_line_ends_and_nothing_is_lost() -> None:
    text = "\n".join(f"line {number}" for number in range(100)) + "\n" + "x" * 250
    pieces = list(cut(Document(text=text, id="d", metadata={"source": "s"}), 100))
    assert all(len(piece.text) <= 100 for piece in pieces)
    assert "".join(piece.text for piece in pieces).replace("\n", "") == text.replace("\n", "")
    assert [piece.id for piece in pieces] == [f"d@{number}" for number in range(len(pieces))]
    assert pieces[0].text.endswith("line 12")
    whole = Document(text=text, id="d")
    assert list(cut(whole, len(text))) == [whole]


def test_blanks_before_line_ends_are_removed_and_others_kept() -> None:
    text = "  a \t\u00a0\n \t\nb  c \u2003\n\u00a0"
    assert normalise(text, fix_encoding=False) == "  a\n\nb  c \u2003"


@pytest.mark.parametrize("fix_encoding", [False, True])
@pytest.mark.parametrize("unit", RUNS)
def test_the_time_is_linear_in_a_run_of_one_kind(unit: str, fix_encoding: bool) -> None:
    def seconds(num_chars: int) -> float:
        text = f"x{unit * (num_chars // len(unit))}x"
        start = time.perf_counter()
        normalise(text, fix_encoding=fix_encoding)
        return time.perf_counter() - start

    # 16 times as much text takes 256 times as long if the time is quadratic: 5 s rather than some milliseconds.
    assert seconds(160_000) < 64 * max(seconds(10_000), 0.003)
