"""Copies of finished checkpoints in a second location: a folder or an object store, given by URL.

Object stores cannot rename, so the manifest marks a copy as complete: it is written last and deleted first.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from mythos.checkpoint import store
from mythos.checkpoint.deadline import Overdue, Stopped, within
from mythos.checkpoint.manifest import FILE_NAME, Manifest, compare, digests, parse_manifest, read_manifest
from mythos.checkpoint.names import step_names, step_of
from mythos.checkpoint.ownership import check_owner, lost_id, own_id
from mythos.checkpoint.retention import kept
from mythos.config.base import ConfigError
from mythos.config.extras import install_command
from mythos.config.run import CheckpointConfig, RunSettings
from mythos.config.schema import OtherSchema
from mythos.files import flush, install, remove

T = TypeVar("T")

_PART_BYTES: Final = 8 * 2**20
"""Larger files are uploaded in parts."""
_MAX_PARTS: Final = 9000
"""Most parts of one file; S3 accepts 10,000."""
_NUM_RETRIES: Final = 3
FIRST_PAUSE_SECONDS: Final = 1.0
"""Pause before the first retry; it doubles before each further one."""
_ANSWER_SECONDS: Final = 60.0
"""Time limit of a request that transfers no file of a checkpoint; a storage that accepts it may never answer."""


class Unreachable(ConfigError):
    """The storage failed a request after all retries."""


def mirror_of(settings: RunSettings) -> "Mirror | None":
    """Mirror of a run's checkpoints at ``<copy_to>/<run.name>``; None without ``copy_to``."""
    copy_to = settings.checkpoint.copy_to
    return None if copy_to is None else Mirror(f"{copy_to.rstrip('/')}/{settings.name}")


class Mirror:
    """The copies of one run's checkpoints.

    Args:
        url: any URL that fsspec supports, e.g. ``s3://bucket/prefix/run``; credentials and endpoint come from the
            environment.

    Raises:
        ConfigError: no installed library supports the URL.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # imported here, since most runs have no mirror
        from fsspec.implementations.local import LocalFileSystem

        self.url = url
        try:  # neither listings nor instances are cached: others write there, and the environment may change
            self._files, root = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{url}: {error}; for s3:// run {install_command('s3')}, or set run.checkpoint.copy_to to another URL."
            ) from None
        self._root = root.rstrip("/")
        self._has_folders = isinstance(self._files, LocalFileSystem)
        self._deadline = math.inf
        self._is_stopped: Callable[[], bool] = lambda: False

    @contextmanager
    def within(self, seconds: float, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Let the requests in this block fail as unreachable ``seconds`` from now.

        Args:
            is_stopped: once it returns True, a request raises ``deadline.Stopped``.
        """
        before = self._deadline, self._is_stopped
        self._deadline, self._is_stopped = time.monotonic() + seconds, is_stopped
        try:
            yield
        finally:
            self._deadline, self._is_stopped = before

    def copy(self, checkpoint: Path) -> None:
        """Copy a finished checkpoint, its manifest last; an earlier copy of the step is deleted first.

        Raises:
            Unreachable: the storage failed; there is no complete copy then.
        """
        name = checkpoint.name
        manifest = read_manifest(checkpoint)
        self.delete(name)
        for file in [*sorted(manifest.files), FILE_NAME]:
            target = self._at(name, file)
            self._do(f"write {name}/{file}", self._send, checkpoint / file, target, seconds=math.inf)

    def checkpoints(self) -> list[str]:
        """Names of the complete copies, oldest first."""
        return self._names(f"step-*/{FILE_NAME}", part=-2)

    def manifest(self, name: str) -> Manifest:
        """Read the manifest of a copy."""
        content = self._do(f"read {name}/{FILE_NAME}", self._files.cat_file, self._at(name, FILE_NAME))
        return parse_manifest(content, f"{self.url}/{name}/{FILE_NAME}")

    def manifests(self) -> dict[str, Manifest]:
        """Manifests of the complete copies by name, oldest first; those that cannot be parsed are omitted."""
        manifests = {}
        for name in self.checkpoints():
            try:
                manifests[name] = self.manifest(name)
            except Unreachable:
                raise
            except ConfigError:  # deleted meanwhile, damaged or of another version
                continue
        return manifests

    def fetch(self, name: str, directory: Path) -> Path:
        """Download a copy into the run's ``checkpoints`` folder, where it appears once it is verified.

        Raises:
            Unreachable: the storage failed.
            ConfigError: a file is missing or altered.
        """
        temporary = directory / f".{name}.fetch"  # the next save removes it with other leftovers
        remove(temporary)
        temporary.mkdir(parents=True)
        try:
            manifest = self.manifest(name)
            for file in sorted(manifest.files):
                target = temporary / file
                target.parent.mkdir(parents=True, exist_ok=True)
                source = self._at(name, file)
                self._do(f"read {name}/{file}", self._files.get_file, source, str(target), seconds=math.inf)
                flush(target)
            compare(manifest.files, digests(temporary), f"{self.url}/{name}")
            manifest.write(temporary)
            install(temporary, directory / name)
        finally:
            remove(temporary)
        return directory / name

    def delete(self, name: str) -> None:
        """Delete a copy, complete or not; absence is fine."""
        self._do(f"delete {name}", self._delete, self._at(name, FILE_NAME), self._at(name))

    def prune(self, settings: CheckpointConfig, valid: str | None = None) -> list[str]:
        """Delete copies that the settings do not keep, and unfinished ones; return their names.

        Args:
            valid: name of a copy that is valid, such as the one just made; copies of later steps are not touched. None
                takes the newest complete copy.
        """
        complete = self.checkpoints()
        if not complete:
            return []
        last = step_of(valid or complete[-1])
        metrics = {name: self._metrics(name) for name in complete if step_of(name) <= last}
        chosen = kept(metrics, settings)
        expired = [name for name in self._names("step-*", part=-1) if step_of(name) <= last and name not in chosen]
        for name in expired:
            self.delete(name)
        return expired

    def _names(self, pattern: str, part: int) -> list[str]:
        """The names of checkpoints in one part of the paths below the root that match a pattern, by step."""
        paths = self._do("list the copies", self._files.glob, f"{self._root}/{pattern}")
        return step_names(path.rstrip("/").split("/")[part] for path in paths)

    def _metrics(self, name: str) -> dict[str, float]:
        """Metrics in a copy's manifest; empty if it is damaged or absent."""
        try:
            return self.manifest(name).metrics
        except Unreachable:
            raise
        except ConfigError:
            return {}

    def _at(self, *parts: str) -> str:
        return "/".join([self._root, *parts])

    def _send(self, source: Path, target: str) -> None:
        if self._has_folders:  # an object store has none, and might create a bucket
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        num_bytes = source.stat().st_size
        self._files.put_file(str(source), target, chunksize=max(_PART_BYTES, num_bytes // _MAX_PARTS + 1))
        num_stored = self._files.size(target)
        if num_stored != num_bytes:
            raise OSError(f"only {num_stored} of {num_bytes} bytes are stored")

    def _delete(self, first: str, rest: str) -> None:
        if self._files.exists(first):
            self._files.rm_file(first)
        if self._files.exists(rest):
            self._files.rm(rest, recursive=True)

    def _do(self, what: str, call: Callable[..., T], *arguments: Any, seconds: float = _ANSWER_SECONDS) -> T:
        """Call a function with retries; a missing file, a refused permission or silence is not retried."""
        begun_at = time.monotonic()
        deadline = min(self._deadline, begun_at + seconds)
        for attempt in range(_NUM_RETRIES + 1):
            try:
                return within(deadline - time.monotonic(), partial(call, *arguments), self._is_stopped)
            except Stopped:
                raise
            except Overdue:
                raise Unreachable(
                    f"{self.url}: cannot {what} (no answer within {time.monotonic() - begun_at:.0f} seconds); check "
                    "the endpoint, raise run.checkpoint.copy_timeout_seconds if the storage is only slow, or set "
                    "run.checkpoint.copy_to to another URL."
                ) from None
            except FileNotFoundError as error:
                raise ConfigError(f"{self.url}: cannot {what}, since it does not exist ({error}).") from None
            except Exception as error:  # each storage library raises its own types
                if attempt == _NUM_RETRIES or isinstance(error, PermissionError):
                    raise Unreachable(
                        f"{self.url}: cannot {what} ({type(error).__name__}: {error}); check the endpoint and the "
                        "credentials, or set run.checkpoint.copy_to to another URL."
                    ) from error
            time.sleep(max(0.0, min(FIRST_PAUSE_SECONDS * 2**attempt, deadline - time.monotonic())))
        raise AssertionError


def newest(
    directory: Path, mirror: Mirror | None, warn: Callable[[str], None] = store.warn_on_stderr
) -> tuple[Path, Manifest] | None:
    """Find the newest checkpoint that verifies, local or in the mirror; one from the mirror is downloaded.

    Args:
        directory: the ``checkpoints`` folder of the run's directory.

    Raises:
        Unreachable: the mirror does not answer; resuming from an older checkpoint would silently lose steps.
        OtherSchema: the newest checkpoint was written by another version.
        ConfigError: the mirror holds copies of another run.
    """
    local = store.newest(directory, warn)
    if mirror is None:
        return local
    copies, run = mirror.manifests(), directory.parent
    run_id = own_id(run, local[1] if local else None)
    check_owner(mirror.url, copies, lost_id(run, copies) if run_id is None else run_id)
    for name in reversed(mirror.checkpoints()):
        if local is not None and step_of(name) <= step_of(local[0].name):
            break
        try:
            path = mirror.fetch(name, directory)
            return path, read_manifest(path)
        except (Unreachable, OtherSchema):
            raise
        except ConfigError as error:
            warn(f"{error} {store.TRYING_EARLIER}")
    return local
