"""How the loss saturates over depth: L(T) = L_inf + Z exp(-z T / mean), fitted by least squares."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_RATES = np.geomspace(0.02, 60, 400)
"""Where z is looked for: slower is a straight line over the depths that are read, faster is over after one pass."""
_REFINEMENTS = 5


class Saturation(NamedTuple):
    """The fitted curve; losses in nats per token."""

    floor: float
    """L_inf, the loss of infinitely many passes."""
    amplitude: float
    """Z, what the passes gain in all."""
    rate: float
    """z, in passes of the mean depth."""
    mean_depth: float
    error: float
    """Root mean square of what the curve leaves over."""

    def at(self, depths: Floats) -> Floats:
        """The curve at these depths."""
        return self.floor + self.amplitude * np.exp(-self.rate * depths / self.mean_depth)


def fit(depths: Floats, losses: Floats, mean_depth: float) -> Saturation | None:
    """The curve that is nearest in least squares: floor and amplitude in closed form, the rate by search.

    None when there are fewer than four depths, or no rate inside the range is best (the loss does not saturate over
    these depths, or does not fall with depth at all).
    """
    if len(depths) < 4 or not np.isfinite(losses).all():
        return None
    rates = _RATES
    for refinement in range(_REFINEMENTS):
        candidates = [_linear(depths / mean_depth, losses, float(rate)) for rate in rates]
        best = int(np.argmin([error for _, _, error in candidates]))
        if refinement == 0 and best in (0, len(rates) - 1):
            return None
        floor, amplitude, error = candidates[best]
        rate = float(rates[best])
        rates = np.geomspace(rates[max(best - 1, 0)], rates[min(best + 1, len(rates) - 1)], 41)
    if amplitude <= 0:
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
