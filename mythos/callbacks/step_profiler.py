"""torch's profiler over a few steps, and the CUDA allocator's history."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from mythos.files import remove, replacing

_MAX_ALLOCATIONS = 200_000
"""Most allocator events in a snapshot."""


class StepProfiler:
    """Opens before a step and closes after one; at most one profile is recorded at a time."""

    def __init__(self) -> None:
        self.memory = False
        self.profile: profile | None = None

    @property
    def is_open(self) -> bool:
        """Whether the present step is profiled."""
        return self.profile is not None

    def open(self, device: torch.device, memory: bool) -> None:
        """Start recording, on CUDA with the allocator's history if ``memory``."""
        self.memory = memory
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            if self.memory:
                torch.cuda.memory._record_memory_history(max_entries=_MAX_ALLOCATIONS)
        self.profile = profile(activities=activities, record_shapes=True, profile_memory=self.memory)
        self.profile.start()

    def close(self, device: torch.device, target: Path) -> None:
        """Stop recording and write ``trace.json.gz`` and, on CUDA, ``memory.pickle`` into the folder ``target``.

        Raises:
            Exception: of any kind, from torch; recording has stopped then.
        """
        assert self.profile is not None
        recorded, self.profile = self.profile, None
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        recorded.stop()
        remove(target)  # a resumed run profiles the same steps again
        with replacing(target) as folder:
            folder.mkdir()
            recorded.export_chrome_trace(str(folder / "trace.json.gz"))
            if device.type == "cuda" and self.memory:
                torch.cuda.memory._dump_snapshot(str(folder / "memory.pickle"))
                torch.cuda.memory._record_memory_history(enabled=None)

    def abandon(self) -> None:
        """Stop recording, if it has started, and write nothing."""
        if self.profile is not None:
            self.profile.stop()
            self.profile = None
