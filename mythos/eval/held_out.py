"""Evaluate a run on the held-out data of every dataset that it was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch

from mythos.config.data import DataConfig
from mythos.data.loader import batches
from mythos.data.manifest import read_manifest
from mythos.data.tokenizer import text_of
from mythos.eval.perplexity import compressed_bits_per_byte, held_out_loss
from mythos.eval.reasoning import ExitPoint, exit_point, study
from mythos.eval.restore import held_out_data, restore
from mythos.eval.scoring import check_loops
from mythos.model.mythos import Mythos

_QUANTILES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class TextResult(NamedTuple):
    """Loss on a dataset of text."""

    num_bytes: int
    """UTF-8 bytes of the held-out text."""
    bits_per_byte: dict[int, float]
    """Code length by number of loops."""
    nats_per_token: dict[int, float]
    """Loss by number of loops."""
    compressors: dict[str, float]
    """Bits per byte of general-purpose compressors on the same text, by their name."""


class ProblemResult(NamedTuple):
    """Accuracy on a dataset of problems."""

    num_problems: int
    solved: dict[int, float]
    """Share of all problems solved, by number of loops."""
    accuracy: dict[int, dict[int, float]]
    """Share of problems solved, by number of loops and then by difficulty."""
    exits: list[ExitPoint]
    """Loops and accuracy at quantiles of the exit distribution; empty when halting is fixed."""


class Evaluation(NamedTuple):
    """Results of one checkpoint."""

    step: int
    """Training step of the checkpoint."""
    text: dict[str, TextResult]
    """By folder of the dataset."""
    problems: dict[str, ProblemResult]
    """By folder of the dataset."""


def evaluate_run(
    run: Path, loop_counts: tuple[int, ...], device: torch.device, data: Sequence[Path] = ()
) -> Evaluation:
    """Evaluate the newest valid checkpoint of a run.

    Args:
        data: folders of packed data; empty for those that the run was trained on.

    Raises:
        ConfigError: there is no checkpoint, the data are missing or others, or a loop count is out of range.
    """
    for num_loops in loop_counts:
        check_loops(num_loops)
    config, model, manifest = restore(run, device)
    held_out = held_out_data(run, config, manifest, data)
    result = Evaluation(manifest.step, {}, {})
    for name in held_out.directories:
        directory = Path(name)
        if read_manifest(directory).splits["validation"].examples_file is None:
            result.text[name] = evaluate_text(directory, model, held_out, loop_counts)
        else:
            result.problems[name] = evaluate_problems(directory, model, held_out, loop_counts)
    return result


def evaluate_text(directory: Path, model: Mythos, data: DataConfig, loop_counts: tuple[int, ...]) -> TextResult:
    """Evaluate a model on the validation split of a packed text."""
    text = text_of(directory, "validation")
    stream = batches(directory, "validation", data.seq_len, data.micro_batch_size, data.mask_documents)
    result = held_out_loss(model, stream, loop_counts)
    return TextResult(
        len(text), result.bits_per_byte(len(text)), result.nats_per_token(), compressed_bits_per_byte(text)
    )


def evaluate_problems(directory: Path, model: Mythos, data: DataConfig, loop_counts: tuple[int, ...]) -> ProblemResult:
    """Evaluate a model on the validation problems of a packed task."""
    result = study(model, directory, data, max(loop_counts))
    points = [] if result.exit_prob_TE is None else [exit_point(result, quantile) for quantile in _QUANTILES]
    ascending = sorted(set(loop_counts))
    solved = {num_loops: result.solved(num_loops) for num_loops in ascending}
    accuracy = {num_loops: result.accuracy(num_loops) for num_loops in ascending}
    return ProblemResult(len(result.difficulty_E), solved, accuracy, points)
