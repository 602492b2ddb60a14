"""An optimiser whose next step can be held back."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch


class SkippableStep:
    """Stands in front of an optimiser's ``step``; closed, it lets neither weights nor moments nor counts move.

    Where an engine shards the optimiser's state, it is the inner optimiser that stands behind the gate.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.is_open = True
        take_step = optimizer.step

        def step(_: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
            """Run the closure, which may still open or close the gate; then step, or not."""
            result = None
            if closure is not None:
                with torch.enable_grad():
                    result = closure()
            if self.is_open:
                take_step()
            return result

        # A method of the optimiser itself: torch's schedulers wrap what stands here and bind it to the optimiser.
        optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
