"""Held-out loss by loop count, the default of ``mythos evaluate``."""

import argparse
from pathlib import Path
from typing import Any

from mythos.cli.evaluate_problems import print_problems
from mythos.eval.held_out import TextResult, evaluate_run
from mythos.eval.restore import choose_device


def held_out(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the newest checkpoint on the validation split of every data set that it was trained on."""
    result = evaluate_run(run, tuple(arguments.num_loops or (1, 2, 4, 8)), choose_device(), arguments.data)
    print(f"{run} at step {result.step}")
    texts = {name: _print_text(name, one) for name, one in result.text.items()}
    return texts | {name: print_problems(name, one) for name, one in result.problems.items()}


def _print_text(name: str, result: TextResult) -> dict[str, Any]:
    """Print bits per byte by loop count, beside what compressors need for the same text, and return the numbers."""
    print(f"{name}: {result.num_bytes:,} bytes of held-out text")
    for compressor, bits in result.compressors.items():
        print(f"  {compressor:<10}{bits:7.3f} bits per byte")
    for count, bits in result.bits_per_byte.items():
        nats = result.nats_per_token[count]
        print(f"  {f'T = {count}':<10}{bits:7.3f} bits per byte   {nats:.4f} nats per token")
    return {name: value for name, value in result._asdict().items() if name != "num_bytes"}
