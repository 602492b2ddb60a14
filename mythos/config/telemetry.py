"""Telemetry of the loops during training."""

from dataclasses import field

from mythos.config.alarms import AlarmsConfig
from mythos.config.base import PositiveInt, PositiveInts, config


@config
class TelemetryConfig:
    """How often the loops are measured, on how many sequences, and the limits of the alarms."""

    trace_every: PositiveInt = 50
    """Optimiser steps between measurements of the loops."""
    trace_rows: PositiveInt = 2
    """Sequences of the step's last micro-batch on which the loss by number of loops and the Jacobian are measured."""
    trace_num_loops: PositiveInts | None = None
    """Loop counts of that loss; null means 1, 2, 4, ... below the mean number of loops, and the mean, rounded."""
    jacobian_every: PositiveInt | None = None
    """Optimiser steps between power iterations on the Jacobian of a loop; null leaves them out."""
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)

    def __post_init__(self) -> None:
        if self.jacobian_every is not None and self.jacobian_every % self.trace_every:
            raise ValueError(
                f"jacobian_every is {self.jacobian_every} but trace_every is {self.trace_every}; "
                "power iterations are part of the telemetry, so the first must be a multiple of the second."
            )

    def loops_read(self, mean: float) -> tuple[int, ...]:
        """Return the loop counts at which the loss on ``trace_rows`` sequences is measured, ascending."""
        if self.trace_num_loops is not None:
            return tuple(sorted(set(self.trace_num_loops)))
        deepest = max(1, round(mean))
        return (*(2**power for power in range(deepest.bit_length()) if 2**power < deepest), deepest)
