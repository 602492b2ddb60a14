"""How a token's state changes from loop to loop: the formulas that telemetry, exit rules and evaluation share."""

from torch import Tensor

_TINY = 1e-12


def relative_change(new_BSD: Tensor, old_BSD: Tensor) -> Tensor:
    """|h' - h| / |h'| of every token, ``[B, S]`` fp32."""
    new_BSD = new_BSD.float()
    return _ratio(new_BSD - old_BSD.float(), new_BSD)


def update_norm(new_BSD: Tensor, old_BSD: Tensor) -> Tensor:
    """|x' - x| / |x| of every token, ``[B, S]`` fp32: what a block adds, relative to its input."""
    old_BSD = old_BSD.float()
    return _ratio(new_BSD.float() - old_BSD, old_BSD)


def relative_acceleration(new_BSD: Tensor, middle_BSD: Tensor, old_BSD: Tensor) -> Tensor:
    """|h'' - 2 h' + h| / |h''| of every token, ``[B, S]`` fp32 (arXiv 2509.23314)."""
    new_BSD = new_BSD.float()
    return _ratio(new_BSD - 2 * middle_BSD.float() + old_BSD.float(), new_BSD)


def curvature_ratio(change_BSD: Tensor, change_before_BSD: Tensor) -> Tensor:
    """|h'' - 2 h' + h| / |h'' - h'| of every token, ``[B, S]`` fp32, from the changes h'' - h' and h' - h.

    0 for a steady drift, |1 - 1 / r| for changes that shrink by r along a line, 2 for a two-cycle;
    ``relative_acceleration`` divides by |h''| instead.
    """
    change_BSD = change_BSD.float()
    return _ratio(change_BSD - change_before_BSD.float(), change_BSD)


def _ratio(change_BSD: Tensor, reference_BSD: Tensor) -> Tensor:
    """|change| / |reference|, with a denominator that is never zero."""
    return change_BSD.norm(dim=-1) / reference_BSD.norm(dim=-1).clamp(min=_TINY)
