"""Saturation of the loss over the number of loops: L(T) = L_inf + Z exp(-z T / mean), fitted by least squares."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_RATES = np.geomspace(0.02, 60, 400)
"""Values of z to search: below, the curve is a straight line over the given loop counts; above, flat after one loop."""
_REFINEMENTS = 5
MAX_ERROR = 0.1
"""Largest root mean square of the residuals, as a share of the losses' range, of a curve that counts as a fit."""
MAX_OVERSHOOT = 0.01
"""Largest height of the floor above the lowest loss, as a share of the losses' range."""


class Saturation(NamedTuple):
    """The fitted curve; losses in nats per token."""

    floor: float
    """L_inf, the loss in the limit of infinitely many loops."""
    amplitude: float
    """Z, the total gain of the loops."""
    rate: float
    """z, per ``mean_depth`` loops."""
    mean_depth: float
    error: float
    """Root mean square of the residuals."""

    def at(self, num_loops: Floats) -> Floats:
        """The curve at these numbers of loops."""
        return self.floor + self.amplitude * np.exp(-self.rate * num_loops / self.mean_depth)


def fit(num_loops: Floats, losses: Floats, mean_depth: float) -> Saturation | None:
    """The least-squares curve: floor and amplitude in closed form, the rate by search.

    None with fewer than four loop counts; if no rate inside the range is best (the loss does not saturate over these
    loop counts, or does not fall with the number of loops at all); or if the best curve does not describe the losses:
    its floor, which no number of loops reaches, lies above one of them by more than ``MAX_OVERSHOOT``, or it misses
    them by more than ``MAX_ERROR``.
    """
    if len(num_loops) < 4 or not np.isfinite(losses).all():
        return None
    rates = _RATES
    for refinement in range(_REFINEMENTS):
        candidates = [_linear(num_loops / mean_depth, losses, float(rate)) for rate in rates]
        best = int(np.argmin([error for _, _, error in candidates]))
        if refinement == 0 and best in (0, len(rates) - 1):
            return None
        floor, amplitude, error = candidates[best]
        rate = float(rates[best])
        rates = np.geomspace(rates[max(best - 1, 0)], rates[min(best + 1, len(rates) - 1)], 41)
    width = np.ptp(losses)
    if amplitude <= 0 or floor > losses.min() + MAX_OVERSHOOT * width or error > MAX_ERROR * width:
        return None
    return Saturation(floor, amplitude, rate, mean_depth, error)


def _linear(scaled: Floats, losses: Floats, rate: float) -> tuple[float, float, float]:
    """Floor, amplitude and root mean square error of the best curve with this rate."""
    falling = np.exp(-rate * scaled)
    centred = falling - falling.mean()
    amplitude = float(centred @ losses / (centred @ centred)) if centred @ centred > 0 else 0.0
    floor = float(losses.mean() - amplitude * falling.mean())
    error = losses - floor - amplitude * falling
    return floor, amplitude, float(np.sqrt((error**2).mean()))
