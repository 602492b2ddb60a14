"""Evaluate a run on its held-out data."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mythos.eval.held_out import Evaluation, evaluate_run
from mythos.eval.restore import choose_device


def evaluate(
    run: str | Path,
    *,
    num_loops: Sequence[int] = (1, 2, 4, 8),
    data: Sequence[str | Path] = (),
    device: str | torch.device | None = None,
) -> Evaluation:
    """Evaluate the newest valid checkpoint on the validation split of every dataset.

    Args:
        run: a run's directory.
        num_loops: numbers of loops at which the model is evaluated.
        data: folders of packed datasets; empty for those that the run was trained on.
        device: where the model runs; None for the GPU if there is one.

    Raises:
        ConfigError: there is no checkpoint, the data are missing or others, or a number of loops is out of range.
    """
    return evaluate_run(Path(run), tuple(num_loops), choose_device(device), [Path(directory) for directory in data])
