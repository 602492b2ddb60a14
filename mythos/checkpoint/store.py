"""The checkpoints of a run: directories ``checkpoints/step-*``, each complete or absent."""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mythos.checkpoint.manifest import Manifest, read_manifest, verify
from mythos.checkpoint.names import is_leftover, step_name, step_names, step_of
from mythos.checkpoint.retention import kept
from mythos.config.base import ConfigError
from mythos.config.os_errors import sentence
from mythos.config.run import CheckpointConfig
from mythos.config.schema import OtherSchema
from mythos.files import flush, install, remove, rename_to_old, sha256, write_text

if TYPE_CHECKING:
    from mythos.checkpoint.fragments import Fragment

FOLDER: Final = "checkpoints"
"""Folder of a run that holds its checkpoints."""
STATE_FILE: Final = "state.json"
"""Holds loops, callbacks, schedule and data position, as the caller's JSON."""
LATEST_FILE: Final = "latest"
"""Names the last finished checkpoint, for people and tools; Mythos never reads it."""
TRYING_EARLIER: Final = "Trying the checkpoint before it."
"""End of a warning about a checkpoint that is skipped."""
_POLL_SECONDS: Final = 0.2


class Saving:
    """Writes one rank's part of a checkpoint; every rank constructs it with equal arguments except ``rank``.

    Rank 0 calls ``begin``, then all ranks wait for each other once; after that ``write`` on every rank and ``finish``
    on rank 0 may run in background threads. Ranks communicate through the file system only: each writes a done marker,
    a file that lists what it wrote. Until ``finish`` has renamed the folder, readers see the previous checkpoint.
    """

    def __init__(self, directory: Path, step: int, rank: int, world_size: int) -> None:
        assert 0 <= rank < world_size
        self.path = directory / step_name(step)
        self._folder = directory / f".{step_name(step)}.tmp"
        self._step = step
        self._rank = rank
        self._world_size = world_size

    def begin(self) -> None:
        """Remove the leftovers of killed saves and create the folder (rank 0 only)."""
        assert self._rank == 0
        with self._os_errors_explained("begin"):
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            for path in self._folder.parent.iterdir():
                if is_leftover(path.name):
                    with _refusals_reported(path):
                        remove(path)
            self._folder.mkdir()

    def write(
        self, fragments: "Iterable[Fragment]", shapes: dict[str, tuple[int, ...]], state: dict[str, Any] | None
    ) -> None:
        """Write this rank's shard, on rank 0 also the state, and then the done marker.

        Raises:
            ConfigError: the disk refuses the write; the previous checkpoint stays the newest.
        """
        with self._os_errors_explained("write its part of"):
            self._write(list(fragments), shapes, state)

    def finish(self, manifest: Manifest, timeout_seconds: float) -> Path:
        """Wait for all ranks, complete the manifest and make the checkpoint visible (rank 0 only).

        Args:
            manifest: complete except for ``checksums`` and ``files``.

        Raises:
            ConfigError: ranks have not finished in time, or their pieces have gaps; the previous checkpoint stays the
                newest and nothing is deleted.
        """
        assert self._rank == 0
        assert manifest.step == self._step
        with self._os_errors_explained("finish"):
            done_markers = self._wait(timeout_seconds)
        files = {name: digest for done_marker in done_markers for name, digest in done_marker["files"].items()}
        complete = replace(manifest, files=files, checksums=self._checksums(done_markers))
        with self._os_errors_explained("finish"):
            complete.write(self._folder)
            for rank in range(self._world_size):
                remove(self._done_marker(rank))
            flush(self._folder)
            install(self._folder, self.path)
            write_text(self.path.parent / LATEST_FILE, f"{self.path.name}\n")
        return self.path

    @contextmanager
    def _os_errors_explained(self, what: str) -> Iterator[None]:
        """Raise an OSError of the block as a ConfigError that names the rank and the step."""
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
        from mythos.checkpoint.fragments import checksum, whole_numel, write_shard  # listing checkpoints needs no torch

        shard = self._folder / f"shard-{self._rank:05d}-of-{self._world_size:05d}.safetensors"
        write_shard(shard, fragments, shapes)
        files = {shard.name: sha256(shard)}
        if state is not None:
            assert self._rank == 0, "only rank 0 writes the state"
            write_text(self._folder / STATE_FILE, json.dumps(state, indent=1))
            files[STATE_FILE] = sha256(self._folder / STATE_FILE)
        pieces = [
            (name, field, whole_numel(shapes, name, field), start, start + len(value_N), checksum(value_N, start))
            for name, field, start, value_N in fragments
        ]
        self._write_done_marker(json.dumps({"files": files, "pieces": pieces, "names": sorted(shapes)}))

    def _write_done_marker(self, text: str) -> None:
        """Mark this rank as done; rank 0 may rename the folder as soon as the marker exists."""
        done_marker = self._done_marker(self._rank)
        temporary = done_marker.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)
        temporary.replace(done_marker)

    def _done_marker(self, rank: int) -> Path:
        return self._folder / f".done-{rank:05d}.json"

    def _wait(self, timeout_seconds: float) -> list[dict[str, Any]]:
        """Wait for the done markers of all ranks and read them."""
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
        """Checksums of whole tensors, from pieces that join without a gap; replicas count once."""
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
        checksums = {}
        for key, value_by_span in sorted(pieces.items()):
            up_to = {0: 0}
            for (start, stop), value in sorted(value_by_span.items()):
                if start in up_to:
                    up_to.setdefault(stop, (up_to[start] + value) % 2**64)
            if numel[key] not in up_to:
                raise ConfigError(f"{self._folder}: the ranks' pieces of {key} leave a gap or do not join; not saved.")
            checksums[key] = f"{up_to[numel[key]]:016x}"
        return checksums


def checkpoints(directory: Path) -> list[Path]:
    """Paths of all checkpoints, oldest first; none of what has another name, such as unfinished ones and users' copies.

    Raises:
        ConfigError: the directory cannot be listed, or is a link that leads nowhere.
    """
    try:
        return [directory / name for name in step_names(path.name for path in directory.iterdir())]
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            if directory.is_symlink():
                raise ConfigError(
                    f"{directory}: a link to {directory.readlink()}, which is not a folder; mount or restore it."
                ) from None
            if not directory.exists():
                return []
        raise ConfigError(f"{sentence(error, f'{directory}: the checkpoints cannot be listed')}.") from error


def warn_on_stderr(text: str) -> None:
    """Print a warning to stderr."""
    print(f"warning: {text}", file=sys.stderr)


def newest(
    directory: Path, warn: Callable[[str], None] = warn_on_stderr, before_step: int | None = None
) -> tuple[Path, Manifest] | None:
    """Find the newest checkpoint whose files all match its manifest; others are skipped with a warning.

    Args:
        before_step: only checkpoints of earlier steps are considered.

    Raises:
        OtherSchema: the newest checkpoint was written by another version; it is not damaged, so it is not skipped.
        ConfigError: the directory cannot be listed.
    """
    for path in reversed(checkpoints(directory)):
        if before_step is not None and step_of(path.name) >= before_step:
            continue
        try:
            return path, verify(path)
        except OtherSchema:
            raise
        except ConfigError as error:
            warn(f"{error} {TRYING_EARLIER}")
    return None


def keep(
    directory: Path, settings: CheckpointConfig, valid: Path | None = None, in_use: Container[str] = ()
) -> list[Path]:
    """Delete the checkpoints that the settings do not keep.

    Those after ``valid`` are not touched, nor those whose manifest cannot be read. One that cannot be deleted is
    reported with a warning.

    Args:
        valid: a checkpoint known to be valid, such as the one just saved; None takes the newest that verifies, which
            reads all its files.
        in_use: names of checkpoints that stay, because they are being copied.

    Returns:
        Paths of the deleted checkpoints.
    """
    if valid is None:
        result = newest(directory)
        if result is None:
            return []
        valid = result[0]
    metrics = {}
    for path in checkpoints(directory):
        if step_of(path.name) <= step_of(valid.name):
            with suppress(ConfigError):
                metrics[path.name] = read_manifest(path).metrics
    expired = [directory / name for name in step_names(metrics.keys() - kept(metrics, settings))]
    expired = [path for path in expired if path.name not in in_use]
    deleted = []
    for path in expired:
        with _refusals_reported(path):
            remove(rename_to_old(path))
            deleted.append(path)
    return deleted


@contextmanager
def _refusals_reported(path: Path) -> Iterator[None]:
    """Print a warning if the system refuses the deletion of ``path``: what is left over is no reason to end a run."""
    try:
        yield
    except OSError as error:
        warn_on_stderr(f"{path}: cannot be deleted: {sentence(error)}.")
