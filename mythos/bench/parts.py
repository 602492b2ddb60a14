"""Time the parts of a step, between events that the host records and the device reaches in order."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mythos.account.flops import loop_flops, outer_flops
from mythos.bench.step import Step
from mythos.config.run import RunConfig
from mythos.loop.part import LoopInputs, LoopState
from mythos.loop.run import LoopStats, Observer, Schedule
from mythos.model.mythos import Mythos

PARTS = ("prelude and coda", "core without gradient", "core with gradient", "head and loss", "optimiser")
"""Parts of a step, each with its forward and backward. Embedding, state noise and masks count to the part that runs
them, and clipping to the last."""


def time_parts(step: Step, num_steps: int) -> dict[str, float]:
    """Milliseconds of one step by part, averaged over steps; they sum to the whole step.

    In the backward, a mark is set where the gradient of a boundary between two parts is complete. Marks split no
    kernel and do not synchronise, but compiled modules with hooks recompile, so time the parts last.
    """
    clock = _Clock(step.device)
    with marking(step.model, clock.mark):
        step(clock.mark)  # the recompilation that hooks cause is not timed
        clock.start()
        for _ in range(num_steps):
            step(clock.mark)
    return {part: milliseconds / num_steps for part, milliseconds in clock.milliseconds().items()}


def part_flops(config: RunConfig, num_loops: int, num_grad_loops: int) -> dict[str, float]:
    """FLOPs of one step by part, as ``account.flops`` counts them; clipping and the optimiser count as zero."""
    model, data = config.model, config.data
    one_loop = loop_flops(model, data.seq_len).total
    head = 2 * model.vocab_size * model.dim
    per_token = {
        "prelude and coda": 3 * (outer_flops(model, data.seq_len).total - head),
        "core without gradient": (num_loops - num_grad_loops) * one_loop,
        "core with gradient": 3 * num_grad_loops * one_loop,
        "head and loss": 3 * head,
        "optimiser": 0,
    }
    return {part: flops * data.batch_size * data.seq_len for part, flops in per_token.items()}


class _Clock:
    """Records marks in order: CUDA events in the stream, or host times."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[str, Any]] = []

    def start(self) -> None:
        """Clear all marks; the first part begins here."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.clear()
        self.mark("")

    def mark(self, part: str) -> None:
        """Assign the work queued since the last mark to ``part``."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((part, event))
        else:
            self.marks.append((part, 1e3 * time.perf_counter()))

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds between marks, summed by part, in the order of ``PARTS``."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        sums: dict[str, float] = defaultdict(float)
        for (_, begin), (part, end) in zip(self.marks, self.marks[1:], strict=False):
            sums[part] += begin.elapsed_time(end) if self.device.type == "cuda" else end - begin
        return {part: sums[part] for part in PARTS}


@contextmanager
def marking(model: Mythos, mark: Callable[[str], None]) -> Iterator[None]:
    """Call ``mark`` with each part's name where it ends: by observers and hooks forward, by tensor hooks backward."""

    def before_head(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        mark("prelude and coda")
        _when_complete(arguments[0], lambda: mark("head and loss"))

    # A compiled module traces its hooks too, but a mark must be set when it is reached and not be part of a graph.
    handle = model.head.register_forward_pre_hook(torch.compiler.disable(before_head))
    model.observers = (_CoreMarks(mark),)
    try:
        yield
    finally:
        model.observers = ()
        handle.remove()


class _CoreMarks(Observer):
    """Marks where the core begins and ends, and its first loop with gradients."""

    def __init__(self, mark: Callable[[str], None]) -> None:
        self.mark = mark
        self.last_loop_without_gradient = -1

    def start(self, schedule: Schedule, state: LoopState, inputs: LoopInputs) -> None:
        self.mark("prelude and coda")
        _when_complete(inputs.e_BSD, lambda: self.mark("core with gradient"))
        self.last_loop_without_gradient = schedule.num_loops - schedule.num_grad_loops - 1
        self._mark_gradients_after(-1)

    def see(self, loop: int, old: LoopState, new: LoopState, stats: LoopStats) -> None:
        self._mark_gradients_after(loop)

    def end(self, state: LoopState) -> None:
        self.mark("core with gradient")
        _when_complete(state.h_BSD, lambda: self.mark("prelude and coda"))

    def _mark_gradients_after(self, loop: int) -> None:
        if loop == self.last_loop_without_gradient:
            self.mark("core without gradient")


def _when_complete(tensor: Tensor, callback: Callable[[], None]) -> None:
    """Call back when the tensor's gradient has been accumulated."""
    if tensor.requires_grad:
        tensor.register_hook(lambda grad: callback())
