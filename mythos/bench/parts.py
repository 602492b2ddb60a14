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
    core, head = model.core, model.head
    is_graded = False

    def before_core(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal is_graded
        is_graded = False
        mark("prelude and coda")
        _when_complete(arguments[1], lambda: mark("core with gradient"))

    def before_loop(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal is_graded
        if torch.is_grad_enabled() and not is_graded:
            is_graded = True
            mark("core without gradient")

    def after_core(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        mark("core with gradient")
        _when_complete(output.exit_states[-1], lambda: mark("prelude and coda"))

    def before_head(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        mark("prelude and coda")
        _when_complete(arguments[0], lambda: mark("head and loss"))

    # A compiled module traces its hooks too; a mark must be taken when it is passed and not be part of a graph.
    outside = torch.compiler.disable
    handles = [
        core.register_forward_pre_hook(outside(before_core)),
        core.register_forward_hook(outside(after_core)),
        core.injection.register_forward_pre_hook(outside(before_loop)),
        head.register_forward_pre_hook(outside(before_head)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _when_complete(tensor: Tensor, act: Callable[[], None]) -> None:
    """Act when the tensor's gradient has been summed up."""
    if tensor.requires_grad:
        tensor.register_hook(lambda grad: act())
