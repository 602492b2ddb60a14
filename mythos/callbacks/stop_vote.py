"""This rank's vote to stop the run: because it was asked to, or because its time is short."""

import time

import torch
from torch import Tensor

from mythos.config.survival import SurvivalSettings
from mythos.parallel.stopping import StopRequest


class StopVote:
    """Votes once a step. The time between votes and of saves is the time needed before the limit."""

    def __init__(self, settings: SurvivalSettings, request: StopRequest) -> None:
        self.limit_seconds = settings.time_limit_seconds
        self.margin_seconds = settings.time_limit_margin_seconds
        self.request = request
        self.cast_at: float | None = None
        self.num_votes = 0
        self.longest_step_seconds = 0.0
        """Time between two votes, with validation and waiting for a save; neither the first step is counted nor one in
        which the process was suspended."""
        self.num_suspensions = request.num_suspensions
        self.longest_save_seconds = 0.0

    def cast(self, device: torch.device) -> Tensor:
        """Return ``[2]``, fp64, each 0 or 1: whether this rank was asked to stop, and whether its time is short."""
        now = time.monotonic()
        was_suspended = self.request.num_suspensions != self.num_suspensions
        if self.cast_at is not None and self.num_votes > 2 and not was_suspended:
            self.longest_step_seconds = max(self.longest_step_seconds, now - self.cast_at)
        self.cast_at, self.num_suspensions = now, self.request.num_suspensions
        self.num_votes += 1
        vote = torch.zeros(2, dtype=torch.float64, device=device)
        vote[0].fill_(self.request.is_asked)
        vote[1].fill_(self._is_short_of_time())
        return vote

    def add_save(self, seconds: float) -> None:
        """Report the duration of a save, with or without its copy."""
        self.longest_save_seconds = max(self.longest_save_seconds, seconds)

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time limit has passed."""
        return self.limit_seconds is not None and self.request.elapsed_seconds > self.limit_seconds

    def _is_short_of_time(self) -> bool:
        """Whether one more step, and a save after it, may end beyond the limit."""
        if self.limit_seconds is None:
            return False
        needed = 2 * self.longest_step_seconds + self.longest_save_seconds + self.margin_seconds
        return self.request.elapsed_seconds + needed > self.limit_seconds
