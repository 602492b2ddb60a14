import json
import socket
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from helpers import save_checkpoint
from moto.server import ThreadedMotoServer
from test_store import manifest, settings, write

from mythos.checkpoint import mirror as mirrors
from mythos.checkpoint.fragments import Fragment, FragmentReader
from mythos.checkpoint.manifest import FILE_NAME, manifest_text, verify
from mythos.checkpoint.mirror import Mirror, Unreachable, newest
from mythos.config.base import ConfigError, decode
from mythos.config.run import RunSettings

SHARD = "shard-00000-of-00001.safetensors"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "FIRST_PAUSE_SECONDS", 0.01)
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # disables botocore's retries, which wait for seconds


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """S3 file system with an empty bucket named ``bucket``."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    files = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    files.mkdir("bucket")
    yield files
    files.rm("bucket", recursive=True)


@pytest.fixture(params=["s3", "folder", "memory"])
def mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mirror]:
    match request.param:
        case "s3":
            request.getfixturevalue("bucket")
            yield Mirror("s3://bucket/prefix/run")
        case "folder":
            yield Mirror(str(tmp_path / "mirror" / "run"))
        case "memory":
            yield Mirror("memory://prefix/run")
            fsspec.filesystem("memory").rm("/prefix", recursive=True)


def forged(manifest: bytes, name: str) -> bytes:
    """A manifest that names another file in place of the state, with the sum of its new text."""
    raw = json.loads(manifest)
    raw["files"][name] = raw["files"].pop("state.json")
    return manifest_text(raw).encode()


def test_a_copy_is_restored_complete(tmp_path: Path, mirror: Mirror) -> None:
    path = write(tmp_path / "here", 3, validation_loss=1.5)
    mirror.copy(path)
    assert mirror.checkpoints() == ["step-00000003"]
    assert mirror.manifest("step-00000003").metrics == {"validation_loss": 1.5}
    fetched = mirror.fetch("step-00000003", tmp_path / "there")
    assert verify(fetched) == verify(path)
    assert {file.name: file.read_bytes() for file in fetched.iterdir() if file.name != FILE_NAME} == {
        file.name: file.read_bytes() for file in path.iterdir() if file.name != FILE_NAME
    }
    assert [one.name for one in (tmp_path / "there").iterdir()] == ["step-00000003"]


def test_a_step_that_is_copied_again_is_replaced(tmp_path: Path, mirror: Mirror) -> None:
    mirror.copy(write(tmp_path / "first", 3, validation_loss=1.0))
    mirror.copy(write(tmp_path / "second", 3, validation_loss=2.0))
    assert mirror.manifest("step-00000003").metrics == {"validation_loss": 2.0}
    verify(mirror.fetch("step-00000003", tmp_path / "there"))


def test_the_mirror_is_pruned_like_the_folder(tmp_path: Path, mirror: Mirror) -> None:
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 5.0), (9, 5.0)):
        mirror.copy(write(tmp_path, step, validation_loss=loss))
    mirror._files.rm_file(mirror._at("step-00000003", FILE_NAME))  # now an unfinished copy
    assert mirror.prune(settings(keep_last=1, keep_best=1), valid="step-00000004") == ["step-00000001", "step-00000003"]
    assert mirror.checkpoints() == ["step-00000002", "step-00000004", "step-00000009"]
    assert mirror.prune(settings(keep_last=2)) == ["step-00000002"]
    assert not mirror._files.exists(mirror._at("step-00000003", SHARD))


def test_a_large_file_is_uploaded_in_parts(tmp_path: Path, bucket: fsspec.AbstractFileSystem) -> None:
    weight_N = torch.arange(7_500_000, dtype=torch.float32)
    path = save_checkpoint(
        tmp_path / "here", manifest(1), [Fragment("w", "weight", 0, weight_N)], {"w": (7_500_000,)}, {}
    )
    mirror = Mirror("s3://bucket/run")
    mirror.copy(path)
    described = bucket.info(f"bucket/run/step-00000001/{SHARD}")
    assert described["size"] > 30_000_000
    assert described["ETag"].strip('"').endswith("-4")  # S3's mark of four parts
    fetched = mirror.fetch("step-00000001", tmp_path / "there")
    assert torch.equal(FragmentReader(fetched).tensor("w"), weight_N)


def test_an_unreachable_endpoint_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        mirror = Mirror("s3://bucket/run")
        path = write(tmp_path, 1)
        for attempt in (lambda: mirror.copy(path), mirror.checkpoints, lambda: newest(tmp_path, mirror)):
            with pytest.raises(Unreachable, match=r"s3://bucket/run: cannot .*127\.0\.0\.1.*check the endpoint"):
                attempt()


def test_a_missing_bucket_is_not_created(tmp_path: Path, bucket: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(ConfigError, match="s3://buckket/run: cannot write step-00000001/shard"):
        Mirror("s3://buckket/run").copy(write(tmp_path, 1))
    assert bucket.ls("") == ["bucket"]


@pytest.mark.parametrize("url", ["nonsense://place", "s33://bucket"])
def test_an_unknown_protocol_is_reported(url: str) -> None:
    with pytest.raises(ConfigError, match=f"{url}: Protocol not known.*run.checkpoint.copy_to"):
        Mirror(url)


@pytest.mark.parametrize(("num_failures", "succeeds"), [(3, True), (4, False)])
def test_three_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_failures: int, succeeds: bool) -> None:
    failures, original = iter(range(num_failures)), LocalFileSystem.put_file

    def failing(self: LocalFileSystem, source: str, target: str, **options: int) -> None:
        if next(failures, None) is not None:
            Path(target).write_bytes(b"half")
            raise OSError("connection reset")
        original(self, source, target, **options)

    path, mirror = write(tmp_path / "here", 1), Mirror(str(tmp_path / "mirror"))
    monkeypatch.setattr(LocalFileSystem, "put_file", failing)
    if succeeds:
        mirror.copy(path)
        verify(mirror.fetch("step-00000001", tmp_path / "there"))
    else:
        with pytest.raises(Unreachable, match="connection reset"):
            mirror.copy(path)
        assert mirror.checkpoints() == []


def test_a_truncated_copy_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shortened, original = iter([1]), LocalFileSystem.put_file

    def shortening(self: LocalFileSystem, source: str, target: str, **options: int) -> None:
        original(self, source, target, **options)
        if next(shortened, None):
            Path(target).write_bytes(Path(target).read_bytes()[:-1])

    monkeypatch.setattr(LocalFileSystem, "put_file", shortening)
    mirror = Mirror(str(tmp_path / "mirror"))
    mirror.copy(write(tmp_path / "here", 1))
    verify(mirror.fetch("step-00000001", tmp_path / "there"))


def test_the_newer_of_folder_and_mirror_is_taken(tmp_path: Path, mirror: Mirror) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert newest(there, None) is None
    assert newest(there, mirror) is None
    for step in (1, 2):
        mirror.copy(write(here, step))
    assert newest(here, mirror, pytest.fail)[0] == here / "step-00000002"
    assert newest(there, mirror, pytest.fail)[0] == there / "step-00000002"
    assert [path.name for path in there.iterdir()] == ["step-00000002"]
    write(here, 3)
    assert newest(here, mirror, pytest.fail)[1].step == 3


def test_a_damaged_checkpoint_is_replaced_by_its_copy(tmp_path: Path, mirror: Mirror) -> None:
    path = write(tmp_path, 2)
    mirror.copy(path)
    (path / SHARD).write_bytes(b"damaged")
    warnings: list[str] = []
    assert newest(tmp_path, mirror, warnings.append)[1].step == 2
    assert len(warnings) == 1
    verify(path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("damage", ["altered", "missing", "manifest", "unfinished", "outside", "absolute"])
def test_a_bad_copy_is_skipped(tmp_path: Path, bucket: fsspec.AbstractFileSystem, damage: str) -> None:
    mirror = Mirror("s3://bucket/run")
    for step in (1, 2):
        mirror.copy(write(tmp_path / "here", step))
    remote = "bucket/run/step-00000002"
    match damage:
        case "altered":
            content = bucket.cat_file(f"{remote}/{SHARD}")
            bucket.pipe_file(f"{remote}/{SHARD}", content[:-1] + bytes([content[-1] ^ 1]))
        case "missing":
            bucket.rm_file(f"{remote}/{SHARD}")
        case "manifest":
            bucket.pipe_file(f"{remote}/{FILE_NAME}", b'{"version": 2, "st')
        case "unfinished":
            bucket.rm_file(f"{remote}/{FILE_NAME}")
        case "outside":
            content = bucket.cat_file(f"{remote}/{FILE_NAME}")
            bucket.pipe_file(f"{remote}/{FILE_NAME}", forged(content, "../state.json"))
        case "absolute":
            content = bucket.cat_file(f"{remote}/{FILE_NAME}")
            bucket.pipe_file(f"{remote}/{FILE_NAME}", forged(content, f"{tmp_path}/planted"))
    warnings: list[str] = []
    path, restored = newest(tmp_path / "there", mirror, warnings.append)
    assert (path.name, restored.step) == ("step-00000001", 1)
    assert not (tmp_path / "planted").exists()
    assert [one.name for one in (tmp_path / "there").iterdir()] == ["step-00000001"]
    if damage == "unfinished":
        assert warnings == []
    else:
        assert len(warnings) == 1
        assert warnings[0].startswith("s3://bucket/run")
        assert "step-00000002" in warnings[0]


def test_each_run_has_its_own_mirror(tmp_path: Path) -> None:
    raw = {"name": "a", "num_steps": 1, "validation": {"every": 1, "num_batches": 1, "num_loops": [1]}}
    run = decode(RunSettings, raw | {"checkpoint": {"every": 1, "copy_to": f"{tmp_path}/"}})
    assert mirrors.mirror_of(run).url == f"{tmp_path}/a"
    assert mirrors.mirror_of(decode(RunSettings, raw | {"checkpoint": {"every": 1}})) is None
