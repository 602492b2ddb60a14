"""What the callbacks share: one value for each optimiser step.

Order of events in a step of n micro-batches::

    n times: forward, backward
    before the optimiser steps: the gradients are complete; on_before_update(gradients)
    after it has stepped: on_step_end(result)

``steps.Steps`` calls both methods of each callback, in the order of the trainer's list (``train/callbacks.py``).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning.pytorch as pl
from torch import Tensor

from mythos.types import Observation

Metrics = dict[str, float]


class StepGradients(NamedTuple):
    """Loss and gradient of a whole step, equal on all ranks; the gradient is not clipped."""

    loss: float
    """Mean over ranks of the loss that the backward started from."""
    norm: float
    square_by_group: dict[str, Tensor]
    """Squared norm of the gradient of each parameter group, fp32 scalars on the device."""


class StopVotes(NamedTuple):
    """How many ranks want to stop, and why."""

    num_asked: float
    """Ranks that received a signal."""
    num_late: float
    """Ranks that are short of time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What an optimiser step produced.

    The last four are None in a step that does not produce them. A callback that produces one returns a value
    with this field set, which the callbacks after it receive.
    """

    step: int
    """Number of finished optimiser steps."""
    observations: tuple[Observation, ...]
    """One for each of this rank's micro-batches."""
    gradients: StepGradients
    votes: StopVotes
    is_skipped: bool
    """Whether the optimiser did not move."""
    is_profiled: bool = False
    """Whether the step ran under torch's profiler."""
    training: Metrics | None = None
    """Set by ``RunRecord``."""
    speed: Metrics | None = None
    """Set by ``Throughput``."""
    telemetry: Metrics | None = None
    """Set by ``LoopTelemetry``."""
    validation: dict[int, float] | None = None
    """Held-out loss by loop count; set by ``Validation``."""


class StepCallback(pl.Callback):
    """A callback that acts once in an optimiser step. It knows no other callback, only the ``StepResult``."""

    def on_before_update(self, trainer: pl.Trainer, module: Any, gradients: StepGradients) -> None:
        """Runs when the gradients are complete, before they are clipped and the optimiser steps."""

    def on_step_end(self, trainer: pl.Trainer, module: Any, result: StepResult) -> StepResult | None:
        """Runs after an optimiser step; returns the value for the callbacks that follow, None for the same one."""
