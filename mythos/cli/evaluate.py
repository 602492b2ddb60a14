"""``mythos evaluate``: bits per byte of the held-out text, by depth, beside what compressors need."""

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "evaluate", help="held-out bits per byte by depth", description="Judge a run on its held-out text."
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8], metavar="T", help="loop counts")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate the newest checkpoint over the whole validation split."""
    from mythos.config.base import ConfigError

    if min(arguments.depths) < 1:
        raise ConfigError(f"--depths: {min(arguments.depths)} was given; the core runs at least once.")

    import torch

    from mythos.data.loader import batches
    from mythos.data.tokenizer import text_of
    from mythos.eval.perplexity import compressed_bits_per_byte, held_out
    from mythos.eval.restore import restore

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, model, manifest = restore(arguments.directory, device)
    data = config.data
    print(f"{arguments.directory} at step {manifest.step}")
    for directory in map(Path, data.directories):
        text = text_of(directory, "validation")
        stream = batches(directory, "validation", data.seq_len, data.micro_batch_size, data.mask_documents)
        result = held_out(model, stream, tuple(arguments.depths))
        print(f"{directory}: {len(text):,} bytes of held-out text")
        for name, bits in compressed_bits_per_byte(text).items():
            print(f"  {name:<10}{bits:7.3f} bits per byte")
        nats = result.nats_per_token()
        for depth, bits in result.bits_per_byte(len(text)).items():
            print(f"  {f'T = {depth}':<10}{bits:7.3f} bits per byte   {nats[depth]:.4f} nats per token")
    return 0
