"""``mythos evaluate``: bits per byte of held-out text, or solved problems of a task, by depth."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mythos.config.data import DataConfig
    from mythos.model.mythos import Mythos

_QUANTILES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "evaluate", help="held-out loss or solved problems by depth", description="Judge a run on its held-out data."
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8], metavar="T", help="loop counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate the newest checkpoint on the validation split of every data set that it was trained on."""
    from mythos.config.base import ConfigError

    if min(arguments.depths) < 1:
        raise ConfigError(f"--depths: {min(arguments.depths)} was given; the core runs at least once.")

    import torch

    from mythos.data.manifest import read_manifest
    from mythos.eval.restore import restore

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, model, manifest = restore(arguments.directory, device)
    print(f"{arguments.directory} at step {manifest.step}")
    found = {}
    for directory in map(Path, config.data.directories):
        described = read_manifest(directory).splits["validation"]
        judge = _text if described.examples_file is None else _task
        found[str(directory)] = judge(directory, model, config.data, arguments.depths)
    if arguments.json is not None:
        from mythos.files import write_text

        write_text(arguments.json, json.dumps(found, indent=1))
    return 0


def _text(directory: Path, model: "Mythos", data: "DataConfig", depths: list[int]) -> dict[str, Any]:
    """Bits per byte by depth, beside what compressors need for the same text."""
    from mythos.data.loader import batches
    from mythos.data.tokenizer import text_of
    from mythos.eval.perplexity import compressed_bits_per_byte, held_out

    text = text_of(directory, "validation")
    stream = batches(directory, "validation", data.seq_len, data.micro_batch_size, data.mask_documents)
    result = held_out(model, stream, tuple(depths))
    print(f"{directory}: {len(text):,} bytes of held-out text")
    compressors = compressed_bits_per_byte(text)
    for name, bits in compressors.items():
        print(f"  {name:<10}{bits:7.3f} bits per byte")
    nats, bits_per_byte = result.nats_per_token(), result.bits_per_byte(len(text))
    for depth, bits in bits_per_byte.items():
        print(f"  {f'T = {depth}':<10}{bits:7.3f} bits per byte   {nats[depth]:.4f} nats per token")
    return {"bits_per_byte": bits_per_byte, "nats_per_token": nats, "compressors": compressors}


def _task(directory: Path, model: "Mythos", data: "DataConfig", depths: list[int]) -> dict[str, Any]:
    """Accuracy by difficulty and depth, and by quantile of the exit distribution where there is one."""
    from mythos.eval.reasoning import exit_point, study

    result = study(model, directory, data, max(depths))
    table = {depth: result.accuracy(depth) for depth in sorted(set(depths))}
    print(f"{directory}: share of {len(result.difficulty_E):,} problems solved, by difficulty")
    print("  " + "".join(f"{name!s:>8}" for name in ("T", *table[min(table)])))
    for depth, accuracy in table.items():
        print(f"  {depth:>8}" + "".join(f"{share:>8.3f}" for share in accuracy.values()))
    found: dict[str, Any] = {"accuracy": table}
    if result.exit_prob_TE is not None:
        points = [exit_point(result, quantile) for quantile in _QUANTILES]
        print("  leaving at a quantile of the exit distribution: mean passes, share solved, rank correlation")
        for point in points:
            numbers = f"{point.mean_passes:8.2f}{point.accuracy:8.3f}{point.rank_correlation:8.3f}"
            print(f"  {point.quantile:8.2f}{numbers}")
        found["exits"] = [point._asdict() for point in points]
    return found
