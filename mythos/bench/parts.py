"""Where a step's time goes, between marks that the host queues and the device passes."""

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
"""Forward and backward of each; with embedding, state noise and masks where they run, clipping in the last."""


def time_parts(step: Step, num_steps: int) -> dict[str, float]:
    """Milliseconds of one step by part, a mean over steps; they sum to the whole.

    A mark in the backward stands where the gradient of a boundary between parts is complete. Marks split no kernel
    and wait for nothing, but compiled modules that carry hooks compile again, so measure these last.
    """
    clock = _Clock(step.device)
    with marking(step.model, clock.mark):
        step(clock.mark)  # what the hooks compile again is not timed
        clock.start()
        for _ in range(num_steps):
            step(clock.mark)
    return {part: milliseconds / num_steps for part, milliseconds in clock.milliseconds().items()}


def part_flops(config: RunConfig, num_loops: int, num_grad_loops: int) -> dict[str, float]:
    """FLOPs of one step by part, as ``account.flops`` counts them; clipping and the optimiser count nothing."""
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
    """Marks in order: CUDA events in the stream, or times of the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[str, Any]] = []

    def start(self) -> None:
        """Forget what was marked; the first part begins here."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.clear()
        self.mark("")

    def mark(self, part: str) -> None:
        """Say that what was queued since the last mark belongs to ``part``."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((part, event))
        else:
            self.marks.append((part, 1e3 * time.perf_counter()))

    def milliseconds(self) -> dict[str, float]:
        """Sums between marks, by part, in the order of ``PARTS``."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        sums: dict[str, float] = defaultdict(float)
        for (_, begin), (part, end) in zip(self.marks, self.marks[1:], strict=False):
            sums[part] += begin.elapsed_time(end) if self.device.type == "cuda" else end - begin
        return {part: sums[part] for part in PARTS}


@contextmanager
def marking(model: Mythos, mark: Callable[[str], None]) -> Iterator[None]:
    """Name each part where it ends while the context lasts: forward by module, backward by boundary tensor."""

    def before_head(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        mark("prelude and coda")
        _when_complete(arguments[0], lambda: mark("head and loss"))

    # A compiled module traces its hooks too; a mark must be taken when it is passed and not be part of a graph.
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


def _when_complete(tensor: Tensor, act: Callable[[], None]) -> None:
    """Act when the tensor's gradient has been summed up."""
    if tensor.requires_grad:
        tensor.register_hook(lambda grad: act())
