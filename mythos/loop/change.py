"""Figures of the change of a state from loop to loop, which telemetry, exit rules and evaluation share."""

from torch import Tensor

_TINY = 1e-12


def relative_change(new_BSD: Tensor, old_BSD: Tensor) -> Tensor:
    """Return |h' - h| / |h'| of every token, ``[B, S]`` fp32."""
    new_BSD = new_BSD.float()
    return _ratio(new_BSD - old_BSD.float(), new_BSD)


def update_norm(new_BSD: Tensor, old_BSD: Tensor) -> Tensor:
    """Return |x' - x| / |x| of every token, ``[B, S]`` fp32: the update of a block, relative to its input."""
    old_BSD = old_BSD.float()
    return _ratio(new_BSD.float() - old_BSD, old_BSD)


def relative_acceleration(new_BSD: Tensor, middle_BSD: Tensor, old_BSD: Tensor) -> Tensor:
    """Return |h'' - 2 h' + h| / |h''| of every token, ``[B, S]`` fp32 (arXiv 2509.23314)."""
    new_BSD = new_BSD.float()
    return _ratio(new_BSD - 2 * middle_BSD.float() + old_BSD.float(), new_BSD)


def curvature_ratio(change_BSD: Tensor, change_before_BSD: Tensor) -> Tensor:
    """Return |h'' - 2 h' + h| / |h'' - h'| of every token, ``[B, S]`` fp32, from the changes h'' - h' and h' - h.

    0 for a steady drift, |1 - 1 / r| for changes that shrink by r along a line, 2 for a two-cycle;
    ``relative_acceleration`` divides by |h''| instead.
    """
    change_BSD = change_BSD.float()
    return _ratio(change_BSD - change_before_BSD.float(), change_BSD)


def _ratio(change_BSD: Tensor, reference_BSD: Tensor) -> Tensor:
    """Return |change| / |reference|, with a denominator above zero."""
    return change_BSD.norm(dim=-1) / reference_BSD.norm(dim=-1).clamp(min=_TINY)
