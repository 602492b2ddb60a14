"""Accuracy on problems by difficulty and number of loops, and by quantile of the exit distribution."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mythos.config.data import DataConfig
from mythos.data.examples import Example, answers_in_windows, read_examples
from mythos.data.loader import batches
from mythos.loop.exits.rules import by_quantile
from mythos.model.mythos import Mythos
from mythos.types import to_device


class Reasoning(NamedTuple):
    """Results of a model on E problems after each of T loops."""

    difficulty_E: np.ndarray
    is_solved_TE: np.ndarray
    """Whether every token of the answer is predicted after 1, 2, ... loops."""
    exit_prob_TE: np.ndarray | None
    """Probability of exiting after each loop at the first token of the answer; None when halting is fixed."""

    def solved(self, num_loops: int) -> float:
        """Share of all problems solved after ``num_loops`` loops."""
        return float(self.is_solved_TE[num_loops - 1].mean())

    def accuracy(self, num_loops: int) -> dict[int, float]:
        """Share of problems solved after ``num_loops`` loops, by difficulty."""
        solved_E = self.is_solved_TE[num_loops - 1]
        return {
            int(difficulty): float(solved_E[self.difficulty_E == difficulty].mean())
            for difficulty in np.unique(self.difficulty_E)
        }


class ExitPoint(NamedTuple):
    """Loops and accuracy when every problem exits at a quantile of its exit distribution."""

    quantile: float
    mean_loops: float
    accuracy: float
    mean_loops_by_difficulty: dict[int, float]
    rank_correlation: float
    """Spearman correlation of exit loop and difficulty; nan when all problems exit after the same loop."""


@torch.no_grad()
def study(model: Mythos, directory: Path, data: DataConfig, num_loops: int) -> Reasoning:
    """Evaluate the validation problems of a packed task after every loop up to ``num_loops``."""
    examples = read_examples(directory)
    device = model.embedding.weight.device
    predictions: list[np.ndarray] = []
    exits: list[np.ndarray] = []
    for host_batch in batches(directory, "validation", data.seq_len, data.micro_batch_size, data.mask_documents):
        prediction_TBS, halting_TBS = model.predict(to_device(host_batch, device), num_loops)
        predictions.append(prediction_TBS.cpu().numpy())
        if halting_TBS is not None:
            exits.append(halting_TBS.cpu().numpy())
    prediction_TWS = np.concatenate(predictions, axis=1)
    is_solved_TE = np.stack([_is_solved(examples, prediction_WS) for prediction_WS in prediction_TWS])
    exit_prob_TE = None
    if exits:
        exit_TWS = np.concatenate(exits, axis=1)
        exit_prob_TE = np.stack([exit_TWS[:, one.window, one.start] for one in examples], axis=1)
    return Reasoning(np.array([one.difficulty for one in examples]), is_solved_TE, exit_prob_TE)


def exit_point(result: Reasoning, quantile: float) -> ExitPoint:
    """Let every problem exit once its cumulative exit probability reaches ``quantile``."""
    assert result.exit_prob_TE is not None
    exit_loop_E = by_quantile(torch.from_numpy(result.exit_prob_TE), quantile).numpy()
    solved_E = result.is_solved_TE[exit_loop_E, np.arange(len(exit_loop_E))]
    by_difficulty = {
        int(difficulty): float(exit_loop_E[result.difficulty_E == difficulty].mean() + 1)
        for difficulty in np.unique(result.difficulty_E)
    }
    return ExitPoint(
        quantile=quantile,
        mean_loops=float(exit_loop_E.mean() + 1),
        accuracy=float(solved_E.mean()),
        mean_loops_by_difficulty=by_difficulty,
        rank_correlation=_spearman(exit_loop_E, result.difficulty_E),
    )


def _is_solved(examples: list[Example], prediction_WS: np.ndarray) -> np.ndarray:
    answers = answers_in_windows(examples, prediction_WS)
    pairs = zip(answers, examples, strict=True)
    return np.array([answer == example.answer_ids for answer, example in pairs])


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman correlation: the Pearson correlation of mid-ranks."""
    first, second = _mid_ranks(one), _mid_ranks(other)
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[inverse]
