"""Whether this rank wants the run to stop: it was asked to, or its time is short."""

import time

import torch
from torch import Tensor

from mythos.config.survival import SurvivalSettings
from mythos.parallel.stopping import StopRequest


class StopVote:
    """This rank's vote, cast once a step; what it measures between votes tells how much time a step and a save need."""

    def __init__(self, settings: SurvivalSettings, request: StopRequest) -> None:
        self.limit_seconds = settings.time_limit_seconds
        self.margin_seconds = settings.time_limit_margin_seconds
        self.request = request
        self.cast_at: float | None = None
        self.num_votes = 0
        self.longest_step_seconds = 0.0
        """Between two votes, so with validation and what a save makes the run wait; the first step is left out."""
        self.longest_save_seconds = 0.0

    def cast(self, device: torch.device) -> Tensor:
        """``[2]``, fp64, each 0 or 1: this rank was asked to stop, its time is short."""
        now = time.monotonic()
        if self.cast_at is not None and self.num_votes > 2:
            self.longest_step_seconds = max(self.longest_step_seconds, now - self.cast_at)
        self.cast_at = now
        self.num_votes += 1
        vote = torch.zeros(2, dtype=torch.float64, device=device)
        vote[0].fill_(self.request.is_asked)
        vote[1].fill_(self._is_short_of_time())
        return vote

    def add_save(self, seconds: float) -> None:
        """Take into account how long a save took, from its beginning until it and its copy were complete."""
        self.longest_save_seconds = max(self.longest_save_seconds, seconds)

    def _is_short_of_time(self) -> bool:
        """Whether one more step, and a save after it, may end beyond the limit."""
        if self.limit_seconds is None:
            return False
        needed = 2 * self.longest_step_seconds + self.longest_save_seconds + self.margin_seconds
        return self.request.elapsed_seconds + needed > self.limit_seconds
