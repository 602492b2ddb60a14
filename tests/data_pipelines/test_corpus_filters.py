import time
from pathlib import Path

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.utils.text import TextNormConfig, simplify_text

from data_pipelines.corpus.config import (
    C4Quality,
    FasttextFilter,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    LangidFilter,
    NoLanguageFilter,
)
from data_pipelines.corpus.filters import build_filters, rejection
from data_pipelines.corpus.words import WORDS
from mythos.config.base import ConfigError

PROSE = "\n\n".join(
    f"The {noun} that stood on the hill had to be moved to the valley with all of its {noun}s before winter came, "
    f"and nobody in the village could remember who had first thought of building a {noun} there."
    for noun in ("mill", "tower", "barn", "chapel")
)
GERMAN = "Der Müller hat gestern mit seiner Frau über den neuen Wagen gesprochen, den sie kaufen wollen. " * 3


def reason_for(text: str, *quality: object, language: object = NoLanguageFilter()) -> str | None:
    return rejection(build_filters(language, quality), Document(text=text, id="d"))


def test_words_and_punctuation_are_separated() -> None:
    assert WORDS.word_tokenize('Don\'t say "é1" -- ever...') == ["Don't", "say", '"', "é1", '"', "--", "ever", "..."]
    assert len(WORDS.sent_tokenize("One is here. Two is there! Is three?")) == 3


def test_ordinary_prose_is_kept_by_every_rule() -> None:
    rules = (GopherQuality(), GopherRepetition(check_n_grams=False), C4Quality(min_sentences=4), FineWebQuality())
    assert reason_for(PROSE, *rules, language=LangidFilter()) is None


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        ("The mill had to be moved.", GopherQuality(), "gopher_short_doc"),
        (PROSE, GopherQuality(max_words=60), "gopher_long_doc"),
        ("the be 12 34 56 " * 20, GopherQuality(min_words=20), "gopher_below_avg_threshold"),
        ("the be to 1234 5678 99 " * 20, GopherQuality(min_words=20, min_alphabetic_words=0.9), "gopher_below"),
        ("walls stood there silently " * 20, GopherQuality(), "gopher_enough_stop_words"),
        ("# the be to of and that have with " * 20, GopherQuality(), "gopher_too_many_hashes"),
        ("The same line again.\n" * 9 + "and one more", GopherRepetition(), "dup_line_frac"),
        ("for all of them the cat sat on the mat; " * 9, GopherRepetition(), "top_3_gram"),
        (PROSE + "\n\nif (x) { it ends. }.", C4Quality(), "curly_bracket"),
        ("Lorem ipsum is what they say.", C4Quality(), "lorem_ipsum"),
        ("One line that is a sentence.", C4Quality(), "too_few_sentences"),
        ("\n".join("no full stop here at all" for _ in range(9)), FineWebQuality(), "line_punct_ratio"),
        ("\n".join(f"Short {n}." for n in range(9)), FineWebQuality(), "short_line_ratio"),
    ],
)
def test_each_rule_gives_its_reason(text: str, rule: object, reason: str) -> None:
    actual = reason_for(text, rule)
    assert actual is not None
    assert reason in actual


def test_c4_removes_lines_and_keeps_the_document() -> None:
    document = Document(text=PROSE + "\nMenu Home About\nWe use cookies on this site.", id="d")
    assert rejection(build_filters(NoLanguageFilter(), (C4Quality(min_sentences=4),)), document) is None
    assert "Menu" not in document.text
    assert "cookies" not in document.text
    assert "chapel" in document.text


def test_languages_are_detected_offline() -> None:
    assert reason_for(GERMAN, language=LangidFilter()) == "language"
    assert reason_for(GERMAN, language=LangidFilter(languages=("de", "fr"))) is None
    assert reason_for("xq 1 zz", language=LangidFilter(min_probability=0.99)) == "language"


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ConfigError, match=r"language\.languages: english is not known to py3langid; it knows .*en"):
        build_filters(LangidFilter(languages=("english",)), ())


class FakeModel:
    """Replaces a model of 130 MB; its predictions have fastText's format."""

    def __init__(self, path: str) -> None:
        assert Path(path).read_bytes() == b"model"

    def predict(self, text: str, k: int) -> tuple[tuple[str, ...], np.ndarray]:
        assert "\n" not in text
        return ("__label__de", "__label__en"), np.array([0.9, 0.1] if "Der" in text else [0.2, 0.8])


def test_a_fasttext_model_on_disk_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttext.FastText._FastText", FakeModel)
    (tmp_path / "lid.bin").write_bytes(b"model")
    language = FasttextFilter(model=str(tmp_path / "lid.bin"))
    assert reason_for(PROSE, language=language) is None
    assert reason_for(GERMAN, language=language) == "language"


def test_a_missing_fasttext_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"language\.model: nowhere\.bin: no such file; download lid\.176\.bin"):
        build_filters(FasttextFilter(model="nowhere.bin"), ())


@pytest.mark.parametrize("unit", [" ", "a", "’a", "[1", "!\n", "1.", "a\u0301", "{", "\n \n"])
def test_the_time_of_all_rules_is_linear_in_a_run_of_one_kind(unit: str) -> None:
    rules = (GopherQuality(min_words=1, max_words=10**6), GopherRepetition(), C4Quality(), FineWebQuality())
    filters = build_filters(LangidFilter(), rules)

    def seconds(num_chars: int) -> float:
        text = f"The king said that {unit * (num_chars // len(unit))} is it.\n"
        start = time.perf_counter()
        for block in filters:
            block.filter(Document(text=text, id="run"))
        WORDS.word_tokenize(simplify_text(text, TextNormConfig(norm_numbers=False)))
        return time.perf_counter() - start

    seconds(100)
    # 16 times as much text takes 256 times as long if the time is quadratic.
    assert seconds(80_000) < 64 * max(seconds(5_000), 0.003)
