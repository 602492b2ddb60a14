"""Copies of a rank's fragments in host memory, taken while the run continues."""

from collections.abc import Iterable

import torch
from torch import Tensor

from mythos.checkpoint.fragments import Fragment


class HostCopy:
    """Copies fragments to the host. On CUDA the copy overlaps with the next forward and reuses pinned memory.

    Only one copy at a time: ``copy`` overwrites the result of the previous call.
    """

    def __init__(self) -> None:
        self._pinned: dict[tuple[str, str, int], Tensor] = {}
        self._stream: torch.cuda.Stream | None = None
        self._copied: torch.cuda.Event | None = None

    def copy(self, fragments: Iterable[Fragment]) -> list[Fragment]:
        """Start copying; on CUDA the values are valid after ``wait``."""
        return [fragment._replace(value_N=self._copy(fragment)) for fragment in fragments]

    def before_update(self) -> None:
        """Make the optimiser wait until the weights that it changes have been copied."""
        if self._copied is not None:
            torch.cuda.current_stream().wait_event(self._copied)

    def wait(self) -> None:
        """Wait until all values are in host memory; may be called from another thread."""
        if self._copied is not None:
            self._copied.synchronize()

    def _copy(self, fragment: Fragment) -> Tensor:
        value_N = fragment.value_N
        if not value_N.is_cuda:
            return value_N.clone()
        if self._stream is None:
            self._stream, self._copied = torch.cuda.Stream(), torch.cuda.Event()
        assert self._copied is not None
        key = (fragment.name, fragment.field, fragment.start)
        host_N = self._pinned.get(key)
        if host_N is None or host_N.shape != value_N.shape:
            host_N = self._pinned[key] = torch.empty_like(value_N, device="cpu", pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            host_N.copy_(value_N, non_blocking=True)
            self._copied.record()
        value_N.record_stream(self._stream)
        return host_N
