"""An optimiser whose next step can be skipped."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch


class SkippableStep:
    """Wraps an optimiser's ``step``. While ``is_open`` is false, weights, moments and step counts do not change.

    Where an engine shards the optimiser's state, it wraps the inner optimiser.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.is_open = True
        take_step = optimizer.step

        def step(_: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
            """Run the closure, which may still set ``is_open``; then step, unless it is false."""
            result = None
            if closure is not None:
                with torch.enable_grad():
                    result = closure()
            if self.is_open:
                take_step()
            return result

        # A method of the optimiser itself, because torch's schedulers wrap it and bind it to the optimiser.
        optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
