"""Held-out loss by loop count, the default of ``mythos evaluate``."""

import argparse
from pathlib import Path
from typing import Any

from mythos.cli.evaluate_checkpoint import newest_checkpoint
from mythos.cli.evaluate_problems import solved_problems
from mythos.config.data import DataConfig
from mythos.data.loader import batches
from mythos.data.manifest import read_manifest
from mythos.data.tokenizer import text_of
from mythos.eval.perplexity import compressed_bits_per_byte, held_out_loss
from mythos.eval.scoring import check_loops
from mythos.model.mythos import Mythos


def held_out(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the newest checkpoint on the validation split of every data set that it was trained on."""
    num_loops = arguments.num_loops or [1, 2, 4, 8]
    check_loops(max(num_loops))
    config, model, manifest = newest_checkpoint(run)
    print(f"{run} at step {manifest.step}")
    results = {}
    for directory in map(Path, config.data.directories):
        has_problems = read_manifest(directory).splits["validation"].examples_file is not None
        evaluate = solved_problems if has_problems else _bits_per_byte
        results[str(directory)] = evaluate(directory, model, config.data, num_loops)
    return results


def _bits_per_byte(directory: Path, model: Mythos, data: DataConfig, num_loops: list[int]) -> dict[str, Any]:
    """Bits per byte by loop count, beside what compressors need for the same text."""
    text = text_of(directory, "validation")
    stream = batches(directory, "validation", data.seq_len, data.micro_batch_size, data.mask_documents)
    result = held_out_loss(model, stream, tuple(num_loops))
    print(f"{directory}: {len(text):,} bytes of held-out text")
    compressors = compressed_bits_per_byte(text)
    for name, bits in compressors.items():
        print(f"  {name:<10}{bits:7.3f} bits per byte")
    nats, bits_per_byte = result.nats_per_token(), result.bits_per_byte(len(text))
    for count, bits in bits_per_byte.items():
        print(f"  {f'T = {count}':<10}{bits:7.3f} bits per byte   {nats[count]:.4f} nats per token")
    return {"bits_per_byte": bits_per_byte, "nats_per_token": nats, "compressors": compressors}
