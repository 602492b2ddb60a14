"""Carries with a slot for each of the last loops: a tuple of tensors of one shape, the newest first."""

from torch import Tensor

Slots = tuple[Tensor, ...]


def empty_slots(zeros: Tensor, num_slots: int) -> Slots:
    """Return the slots before the first loop, which all are one tensor of zeros."""
    return (zeros,) * num_slots


def filled(slots: Slots, loop: int | Tensor) -> Slots:
    """Return the slots that loops before this one have filled; all if sequences are in different loops."""
    return slots[:loop] if isinstance(loop, int) else slots


def push(slots: Slots, newest: Tensor) -> Slots:
    """Return the slots of the next loop, without the oldest; no tensor is copied."""
    return (newest, *slots[:-1])
