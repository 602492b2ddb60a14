"""Language and quality filters; all except the offline language model are datatrove's."""

from functools import cache
from pathlib import Path
from typing import Final

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.lid import FastTextLID

from data_pipelines.corpus.config import (
    C4Quality,
    FasttextFilter,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    LangidFilter,
    LanguageConfig,
    NoLanguageFilter,
    QualityConfig,
)
from data_pipelines.corpus.words import WORDS
from mythos.config.base import ConfigError

_LANGUAGE_SAMPLE: Final = 2000
"""Number of characters from which the language is detected; more cost time and change nothing."""


@cache
def build_filters(language: LanguageConfig, quality: tuple[QualityConfig, ...]) -> tuple[BaseFilter, ...]:
    """Build the filters in the order in which they are applied."""
    return (*_language_filters(language), *(_quality_filter(rule) for rule in quality))


def rejection(filters: tuple[BaseFilter, ...], document: Document) -> str | None:
    """Reason of the first filter that rejects the document, or None; filters may remove lines from its text."""
    for block in filters:
        verdict = block.filter(document)
        kept, reason = verdict if isinstance(verdict, tuple) else (verdict, "language")
        if not kept:
            return reason
    return None


def _language_filters(language: LanguageConfig) -> tuple[BaseFilter, ...]:
    match language:
        case NoLanguageFilter():
            return ()
        case LangidFilter():
            return (OfflineLanguageFilter(language.languages, language.min_probability),)
        case FasttextFilter():
            if not Path(language.model).is_file():
                raise ConfigError(
                    f"language.model: {language.model}: no such file; download lid.176.bin "
                    "there, or set language.kind=langid."
                )
            block = LanguageFilter(list(language.languages), language.min_probability)
            block.model = _LocalModel(list(language.languages), language.model)
            return (block,)


def _quality_filter(rule: QualityConfig) -> BaseFilter:
    match rule:
        case GopherQuality():
            return GopherQualityFilter(
                min_doc_words=rule.min_words,
                max_doc_words=rule.max_words,
                max_non_alpha_words_ratio=rule.min_alphabetic_words,
                max_symbol_word_ratio=rule.max_symbols_per_word,
                language=WORDS,
            )
        case GopherRepetition():
            n_grams = {} if rule.check_n_grams else {"top_n_grams": (), "dup_n_grams": ()}
            return GopherRepetitionFilter(
                dup_line_frac=rule.max_duplicate_lines,
                dup_para_frac=rule.max_duplicate_paragraphs,
                language=WORDS,
                **n_grams,
            )
        case C4Quality():
            return C4QualityFilter(
                min_num_sentences=rule.min_sentences,
                filter_curly_bracket=rule.drop_curly_brackets,
                filter_no_terminal_punct=not rule.keep_lines_without_full_stop,
                language=WORDS,
            )
        case FineWebQuality():
            return FineWebQualityFilter(
                line_punct_thr=rule.min_full_stops,
                char_duplicates_ratio=rule.max_duplicate_characters,
                short_line_thr=rule.max_short_lines,
                new_line_ratio=rule.max_newlines_per_word,
                language=WORDS,
            )


class OfflineLanguageFilter(BaseFilter):
    """Keeps documents whose beginning is in one of the languages (py3langid; Lui and Baldwin 2012)."""

    name = "py3langid"

    def __init__(self, languages: tuple[str, ...], min_probability: float) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        super().__init__()
        self.identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        if unknown := sorted(set(languages) - set(self.identifier.labels)):
            raise ConfigError(
                f"language.languages: {', '.join(unknown)} is not known to py3langid; it knows "
                f"{', '.join(sorted(self.identifier.labels))}."
            )
        self.languages = languages
        self.min_probability = min_probability

    def filter(self, doc: Document) -> bool:
        """Whether the most probable language is one of ``languages`` and probable enough."""
        detected, probability = self.identifier.classify(doc.text[:_LANGUAGE_SAMPLE])
        doc.metadata["language"] = detected
        return detected in self.languages and probability >= self.min_probability


class _LocalModel(FastTextLID):
    """Loads a local model file; datatrove would download its own."""

    def __init__(self, languages: list[str], path: str) -> None:
        super().__init__(languages)
        from fasttext.FastText import _FastText

        self._model = _FastText(path)
