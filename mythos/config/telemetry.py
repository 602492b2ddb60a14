"""How closely the loops are watched while a run trains."""

from dataclasses import field

from mythos.config.alarms import AlarmsConfig
from mythos.config.base import PositiveInt, PositiveInts, config


@config
class TelemetryConfig:
    """How often the loops are measured, on how many sequences, and the limits of the alarms."""

    trace_every: PositiveInt = 50
    """Optimiser steps between records of what the loops do."""
    trace_rows: PositiveInt = 2
    """Sequences of the step's last micro-batch on which the loss by depth and the Jacobian are read."""
    trace_num_loops: PositiveInts | None = None
    """Loop counts at which that loss is read; null means 1, 2, 4, ... below the mean depth, and the mean depth."""
    jacobian_every: PositiveInt | None = None
    """Optimiser steps between power iterations on the Jacobian of a loop; null leaves them out."""
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)

    def __post_init__(self) -> None:
        if self.jacobian_every is not None and self.jacobian_every % self.trace_every:
            raise ValueError(
                f"jacobian_every is {self.jacobian_every} but trace_every is {self.trace_every}; "
                "power iterations are part of a trace, so the first must be a multiple of the second."
            )

    def loops_read(self, mean_depth: float) -> tuple[int, ...]:
        """The depths at which the loss on ``trace_rows`` is read, ascending."""
        if self.trace_num_loops is not None:
            return tuple(sorted(set(self.trace_num_loops)))
        deepest = max(1, round(mean_depth))
        return (*(2**power for power in range(deepest.bit_length()) if 2**power < deepest), deepest)
