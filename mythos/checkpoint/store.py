"""The checkpoints of a run: ``checkpoints/step-*``, complete or absent."""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mythos.checkpoint.manifest import Manifest, read_manifest, verify
from mythos.checkpoint.retention import kept
from mythos.config.base import ConfigError
from mythos.config.run import CheckpointConfig
from mythos.files import flush, install, remove, set_aside, sha256, write_text

if TYPE_CHECKING:
    from mythos.checkpoint.fragments import Fragment

FOLDER: Final = "checkpoints"
"""Where a run keeps them."""
STATE_FILE: Final = "state.json"
"""Loops, callbacks, schedule and data position, as the caller's JSON."""
LATEST_FILE: Final = "latest"
"""Names the last checkpoint that was finished, for people and tools; nothing here trusts it."""
_POLL_SECONDS: Final = 0.2


class Saving:
    """One rank's part in writing one checkpoint; every rank makes it with the same arguments but ``rank``.

    Rank 0 calls ``begin``, then all ranks wait for each other once; after that ``write`` on every rank and ``finish``
    on rank 0 may run in background threads. Ranks meet in the file system only: each leaves a file that says what it
    wrote. Until ``finish`` has renamed the folder, readers see the checkpoint before it.
    """

    def __init__(self, directory: Path, step: int, rank: int, world_size: int) -> None:
        assert 0 <= rank < world_size
        self.path = directory / f"step-{step:08d}"
        self._folder = directory / f".step-{step:08d}.tmp"
        self._step = step
        self._rank = rank
        self._world_size = world_size

    def begin(self) -> None:
        """Sweep away what killed saves have left and make the folder (rank 0 only)."""
        assert self._rank == 0
        with self._refusals_named("begin"):
            for leftover in self._folder.parent.glob(".step-*"):
                remove(leftover)
            self._folder.mkdir(parents=True)

    def write(
        self, fragments: "Iterable[Fragment]", shapes: dict[str, tuple[int, ...]], state: dict[str, Any] | None
    ) -> None:
        """Write this rank's shard, rank 0 the state as well, and then the note that they are there.

        Raises:
            ConfigError: the disk refuses; the checkpoint before stays the newest.
        """
        with self._refusals_named("write its part of"):
            self._write(list(fragments), shapes, state)

    def finish(self, manifest: Manifest, timeout_seconds: float) -> Path:
        """Wait for all ranks, complete the manifest and let readers see the checkpoint (rank 0 only).

        Args:
            manifest: complete but for ``checksums`` and ``files``.

        Raises:
            ConfigError: ranks have not finished in time, or their pieces leave gaps; the checkpoint before stays the
                newest and nothing is deleted.
        """
        assert self._rank == 0
        assert manifest.step == self._step
        done_markers = self._wait(timeout_seconds)
        files = {name: digest for done_marker in done_markers for name, digest in done_marker["files"].items()}
        complete = replace(manifest, files=files, checksums=self._checksums(done_markers))
        with self._refusals_named("finish"):
            complete.write(self._folder)
            for rank in range(self._world_size):
                remove(self._done_marker(rank))
            flush(self._folder)
            install(self._folder, self.path)
            write_text(self.path.parent / LATEST_FILE, f"{self.path.name}\n")
        return self.path

    @contextmanager
    def _refusals_named(self, what: str) -> Iterator[None]:
        """Turn what the disk refuses into a sentence."""
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self._folder}: rank {self._rank} cannot {what} step {self._step} ({error}); "
                "the checkpoint before it is unharmed."
            ) from error

    def _write(
        self, fragments: "list[Fragment]", shapes: dict[str, tuple[int, ...]], state: dict[str, Any] | None
    ) -> None:
        from mythos.checkpoint.fragments import checksum, whole_numel, write_shard  # looks at checkpoints need no torch

        shard = self._folder / f"shard-{self._rank:05d}-of-{self._world_size:05d}.safetensors"
        write_shard(shard, fragments, shapes)
        files = {shard.name: sha256(shard)}
        if state is not None:
            assert self._rank == 0, "the state is rank 0's to write"
            write_text(self._folder / STATE_FILE, json.dumps(state, indent=1))
            files[STATE_FILE] = sha256(self._folder / STATE_FILE)
        pieces = [
            (name, field, whole_numel(shapes, name, field), start, start + len(value_N), checksum(value_N, start))
            for name, field, start, value_N in fragments
        ]
        self._write_done_marker(json.dumps({"files": files, "pieces": pieces, "names": sorted(shapes)}))

    def _write_done_marker(self, text: str) -> None:
        """Say that this rank is done; from then on the folder is rank 0's, which may rename it at once."""
        done_marker = self._done_marker(self._rank)
        temporary = done_marker.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)
        temporary.replace(done_marker)

    def _done_marker(self, rank: int) -> Path:
        return self._folder / f".done-{rank:05d}.json"

    def _wait(self, timeout_seconds: float) -> list[dict[str, Any]]:
        """The notes of all ranks."""
        deadline = time.monotonic() + timeout_seconds
        while missing := [rank for rank in range(self._world_size) if not self._done_marker(rank).exists()]:
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"{self._folder}: {len(missing)} of {self._world_size} ranks have not written their part of step "
                    f"{self._step} within {timeout_seconds:g} seconds (the first is rank {missing[0]}); "
                    "the checkpoint before it is unharmed."
                )
            time.sleep(_POLL_SECONDS)
        return [json.loads(self._done_marker(rank).read_text(encoding="utf-8")) for rank in range(self._world_size)]

    def _checksums(self, done_markers: list[dict[str, Any]]) -> dict[str, str]:
        """Sums of whole tensors from those of pieces that join without a gap; replicas count once."""
        pieces: dict[str, dict[tuple[int, int], int]] = defaultdict(dict)
        numel: dict[str, int] = {}
        for done_marker in done_markers:
            for name, field, whole, start, stop, value in done_marker["pieces"]:
                pieces[f"{name}|{field}"].setdefault((start, stop), value)
                numel[f"{name}|{field}"] = whole
        absent = {name for done_marker in done_markers for name in done_marker["names"]} - {
            key.split("|")[0] for key in pieces
        }
        if absent:
            raise ConfigError(f"{self._folder}: no rank has written anything of {min(absent)}; not saved.")
        sums = {}
        for key, found in sorted(pieces.items()):
            up_to = {0: 0}
            for (start, stop), value in sorted(found.items()):
                if start in up_to:
                    up_to.setdefault(stop, (up_to[start] + value) % 2**64)
            if numel[key] not in up_to:
                raise ConfigError(f"{self._folder}: the ranks' pieces of {key} leave a gap or do not join; not saved.")
            sums[key] = f"{up_to[numel[key]]:016x}"
        return sums


def save(
    directory: Path,
    manifest: Manifest,
    fragments: "Iterable[Fragment]",
    shapes: dict[str, tuple[int, ...]],
    state: dict[str, Any],
) -> Path:
    """Write a checkpoint from one process."""
    saving = Saving(directory, manifest.step, rank=0, world_size=1)
    saving.begin()
    saving.write(fragments, shapes, state)
    return saving.finish(manifest, timeout_seconds=0)


def checkpoints(directory: Path) -> list[Path]:
    """All checkpoints, oldest first; unfinished ones have other names."""
    return sorted(directory.glob("step-*"))


def warn_on_stderr(text: str) -> None:
    """What a person at the terminal should know."""
    print(f"warning: {text}", file=sys.stderr)


def newest(
    directory: Path, warn: Callable[[str], None] = warn_on_stderr, before_step: int | None = None
) -> tuple[Path, Manifest] | None:
    """The newest checkpoint whose files all match its manifest; damaged ones are passed over aloud.

    Args:
        before_step: look only at those of earlier steps.
    """
    for path in reversed(checkpoints(directory)):
        if before_step is not None and path.name >= f"step-{before_step:08d}":
            continue
        try:
            return path, verify(path)
        except ConfigError as error:
            warn(f"{error} Trying the checkpoint before it.")
    return None


def keep(directory: Path, settings: CheckpointConfig, valid: Path | None = None) -> list[Path]:
    """Delete the checkpoints that the settings do not keep; those after the newest sound one are left alone.

    Args:
        sound: one that is known to be whole, such as the one just saved; None looks for the newest that verifies,
            which reads all of it.

    Returns:
        What was deleted.
    """
    if valid is None:
        found = newest(directory)
        if found is None:
            return []
        valid = found[0]
    candidates = {path.name: _metrics(path) for path in checkpoints(directory) if path.name <= valid.name}
    expired = [directory / name for name in sorted(candidates.keys() - kept(candidates, settings))]
    for path in expired:
        remove(set_aside(path))
    return expired


def _metrics(checkpoint: Path) -> Mapping[str, float]:
    """What the manifest says, if it can be read."""
    try:
        return read_manifest(checkpoint).metrics
    except ConfigError:
        return {}
