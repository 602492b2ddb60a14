"""Configuration of a corpus: its sources and the rules by which documents are kept."""

from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import Fraction, PositiveInt, config


@config
class FilesSource:
    """Files below a folder: parquet, JSON lines, text, Markdown and HTML, each plain or as .gz or .zst."""

    kind: Literal["files"] = "files"
    dir: str
    """Folder of the files; a relative path starts from the corpus's ``source``."""
    licence: str
    """Licence of every document for which ``licence_column`` gives none."""
    pattern: str = "**/*"
    """Glob pattern of the files, as in ``pathlib``."""
    text_column: str = "text"
    id_column: str | None = None
    """Column of identifiers; null forms them from the file's path and the row number."""
    licence_column: str | None = None
    metadata_columns: tuple[str, ...] = ()
    """Columns that are copied into ``metadata``."""


@config
class HubSource:
    """A data set on the Hugging Face Hub, or a local folder in the Hub's layout; streamed, file by file."""

    kind: Literal["hub"] = "hub"
    path: str
    name: str | None = None
    """Name of the data set's configuration on the Hub."""
    data_dir: str | None = None
    split: str = "train"
    revision: str | None = None
    """Commit or tag; the content of a branch can change."""
    num_files: PositiveInt | None = None
    """Number of the data set's files to read, from the first; null reads all."""
    licence: str
    text_column: str = "text"
    id_column: str | None = None
    licence_column: str | None = None
    metadata_columns: tuple[str, ...] = ()


@config
class DebianPackage:
    """One documentation package."""

    version: str
    licence: str
    pattern: str = "**/*.html"
    """Glob pattern of the package's files that are documents."""


@config
class DebianSource:
    """Documentation packages that ``mythos-data fetch`` downloads and unpacks, each into ``<dir>/<package>``."""

    kind: Literal["debian"] = "debian"
    dir: str
    packages: dict[str, DebianPackage]


SourceConfig = Annotated[FilesSource | HubSource | DebianSource, Field(discriminator="kind")]


@config
class NoLanguageFilter:
    """Keeps every language."""

    kind: Literal["none"] = "none"


@config
class LangidFilter:
    """Detects languages with py3langid, whose model is part of its package, so nothing is downloaded."""

    kind: Literal["langid"] = "langid"
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = ("en",)
    """ISO 639-1 codes."""
    min_probability: Fraction = 0.65


@config
class FasttextFilter:
    """Detects languages with a fastText model file such as lid.176.bin (Joulin et al. 2017)."""

    kind: Literal["fasttext"] = "fasttext"
    model: str
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = ("en",)
    min_probability: Fraction = 0.65


LanguageConfig = Annotated[NoLanguageFilter | LangidFilter | FasttextFilter, Field(discriminator="kind")]


@config
class GopherQuality:
    """Rae et al. 2021 (arXiv 2112.11446), A1.1: word counts, word lengths, symbols, bullets, stop words."""

    kind: Literal["gopher_quality"] = "gopher_quality"
    min_words: PositiveInt = 50
    max_words: PositiveInt = 100_000
    min_alphabetic_words: Fraction = 0.8
    """Smallest share of words that contain a letter; code and tables have fewer than prose."""
    max_symbols_per_word: Fraction = 0.1
    """Largest number of hash signs, and of ellipses, per word."""


@config
class GopherRepetition:
    """Rae et al. 2021, table A1: repeated lines, paragraphs and n-grams."""

    kind: Literal["gopher_repetition"] = "gopher_repetition"
    max_duplicate_lines: Fraction = 0.3
    max_duplicate_paragraphs: Fraction = 0.3
    check_n_grams: bool = True


@config
class C4Quality:
    """Raffel et al. 2020 (arXiv 1910.10683), section 2.2; it also removes lines without a full stop."""

    kind: Literal["c4"] = "c4"
    min_sentences: PositiveInt = 5
    drop_curly_brackets: bool = True
    keep_lines_without_full_stop: bool = False


@config
class FineWebQuality:
    """Penedo et al. 2024 (arXiv 2406.17557), section 3.6: line ends, duplicated lines, short lines."""

    kind: Literal["fineweb"] = "fineweb"
    min_full_stops: Fraction = 0.12
    max_duplicate_characters: Fraction = 0.01
    max_short_lines: Fraction = 0.67
    max_newlines_per_word: Fraction = 0.3


QualityConfig = Annotated[GopherQuality | GopherRepetition | C4Quality | FineWebQuality, Field(discriminator="kind")]


@config
class NoMinHash:
    """Keeps near duplicates."""

    kind: Literal["none"] = "none"


@config
class MinHash:
    """MinHash (Broder 1997) with banding: documents that agree on all hashes of any bucket are near duplicates."""

    kind: Literal["minhash"] = "minhash"
    num_buckets: PositiveInt = 14
    hashes_per_bucket: PositiveInt = 8
    shingle_words: PositiveInt = 5


MinHashConfig = Annotated[NoMinHash | MinHash, Field(discriminator="kind")]


@config
class NoDecontamination:
    """Compares nothing with evaluation sets."""

    kind: Literal["none"] = "none"


@config
class NGramDecontamination:
    """Cuts out text that shares an n-gram of words with an evaluation set (Brown et al. 2020, appendix C)."""

    kind: Literal["n_grams"] = "n_grams"
    dir: str
    """Folder of .jsonl and .txt evaluation sets; a relative path starts from the corpus's ``source``."""
    num_words: PositiveInt = 13
    window_characters: PositiveInt = 2000
    """Length of the text that is cut out around a match, rounded to whole lines."""


DecontaminationConfig = Annotated[NoDecontamination | NGramDecontamination, Field(discriminator="kind")]


@config
class CorpusConfig:
    """Configuration of a corpus that ``mythos-data clean`` builds."""

    source: str | None = None
    """Folder from which relative paths start; null is the current folder."""
    sources: dict[str, SourceConfig]
    fix_encoding: bool = True
    """Repair text that was decoded wrongly (ftfy)."""
    max_characters: PositiveInt = 1_000_000
    """Longer texts are cut into documents of at most this length, at line ends where possible."""
    language: LanguageConfig = NoLanguageFilter()
    quality: tuple[QualityConfig, ...] = ()
    """Rules in order; each is applied to what the previous one kept."""
    exact_duplicates: Literal["keep", "drop"] = "drop"
    near_duplicates: MinHashConfig = NoMinHash()
    decontamination: DecontaminationConfig = NoDecontamination()
    shard_bytes: PositiveInt = 32_000_000
    """Size on disk of the input files of one shard, the unit of work that a restart repeats."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources is empty; name at least one.")
