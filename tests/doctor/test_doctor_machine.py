"""The checks of one node, each against a simulated machine or an independent count."""

import os
import resource
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import run_config, saved
from packaging.specifiers import SpecifierSet

from mythos.checkpoint.retention import kept
from mythos.data.shards import open_split
from mythos.doctor import gpus as gpus_module
from mythos.doctor import host, storage
from mythos.doctor import versions as versions_module
from mythos.doctor.finding import Finding, joined, worst
from mythos.doctor.gpus import compute_mode, devices, memory_in_use, parse
from mythos.doctor.plugins import installed_plugins
from mythos.doctor.versions import driver_of, versions
from mythos.model.mythos import Mythos
from mythos.train.build import train
from mythos.train.run_directory import prepare

SMI = """GPU-aa, NVIDIA H200, 580.95.05, 4, 143771, Default
GPU-bb, NVIDIA H200, 580.95.05, 9216, 143771, Prohibited
GPU-cc, NVIDIA GB10, 580.95.05, [N/A], [N/A], Default
"""
TWO = ["optim=adamw", "parallel=zero1", "data.batch_size=8", "data.micro_batch_size=2", "cluster.num_devices=2"]


def of(findings: list[Finding], check: str) -> Finding:
    (finding,) = (finding for finding in findings if finding.check == check)
    return finding


def test_a_line_has_the_measured_and_expected_values_and_advice() -> None:
    line = str(Finding(check="a", status="warning", found="3", expected="4", advice="add one"))
    assert line.split(maxsplit=2) == ["warning", "a", "3, expected 4; add one"]
    assert str(Finding(check="a", status="ok", found="3")).split() == ["ok", "a", "3"]


def test_findings_of_nodes_are_joined_by_the_worst_status() -> None:
    def node(*statuses: str) -> list[Finding]:
        return [
            Finding(check=check, status=status, found=status) for check, status in zip("xyz", statuses, strict=True)
        ]

    together = joined(
        [("a", node("ok", "ok", "fails")), ("b", node("ok", "warning", "warning")), ("c", node("ok", "ok", "ok"))]
    )
    assert [(one.check, one.status, one.found) for one in together] == [
        ("x", "ok", "ok (a and 2 more)"),
        ("y", "warning", "warning (b)"),
        ("z", "fails", "fails (a)"),
    ]
    assert worst(together) == "fails"
    assert joined([("a", node("ok", "ok", "ok"))]) == node("ok", "ok", "ok")


def test_versions_are_checked_against_the_ranges_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = versions_module.version
    monkeypatch.setattr(versions_module, "version", lambda name: "2.10.1" if name == "torch" else real(name))
    found = of(versions(None, []), "torch")
    assert (found.status, found.found, SpecifierSet(found.expected)) == (
        "fails",
        "2.10.1",
        SpecifierSet(">=2.11,<2.15"),
    )
    assert found.advice.startswith("use pip install 'torch")
    assert of(versions(None, []), "python").status == "ok"


def test_a_hopper_gpu_without_faster_kernels_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    hopper, _, _ = parse(SMI)
    assert not [one for one in versions(None, []) if one.check == "quack-kernels"]
    found = of(versions(None, [hopper]), "quack-kernels")
    assert (found.status, found.found) == ("warning", "not installed")
    assert found.advice.endswith("run pip install -e '.[flash]' in a clone of Mythos")
    real = versions_module.version
    monkeypatch.setattr(versions_module, "version", lambda name: "0.6.4" if name == "quack-kernels" else real(name))
    assert of(versions(None, [hopper]), "quack-kernels").status == "warning"  # another version is not accepted
    monkeypatch.setattr(versions_module, "version", lambda name: "0.6.5" if name == "quack-kernels" else real(name))
    assert of(versions(None, [hopper]), "quack-kernels").status == "ok"
    assert not [one for one in versions(None, [hopper._replace(name="NVIDIA A100")]) if one.check == "quack-kernels"]


def test_deepspeed_is_needed_by_ranks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise versions_module.PackageNotFoundError(name)

    monkeypatch.setattr(versions_module, "version", absent)
    statuses = [of(versions(config, []), "deepspeed").status for config in (None, run_config(), run_config(*TWO))]
    assert statuses == ["ok", "ok", "fails"]
    assert of(versions(run_config(*TWO), []), "deepspeed").advice == (
        "run pip install -e '.[deepspeed]' in a clone of Mythos"
    )
    lightning = of(versions(None, []), "lightning")
    assert (lightning.status, lightning.advice) == ("fails", "run pip install -e . in a clone of Mythos")


@pytest.mark.parametrize(
    ("driver", "cuda", "status"),
    [
        ("580.95.05", "13.0", "ok"),
        ("575.57.08", "13.0", "fails"),
        ("575.57.08", "12.8", "ok"),
        ("470.82.01", "12.8", "fails"),
        ("unknown", "13.0", "fails"),
        ("470.82.01", "11.8", "ok"),
    ],
)
def test_the_driver_is_checked_against_cuda(driver: str, cuda: str, status: str) -> None:
    assert driver_of(driver, cuda).status == status


def test_nvidia_smi_is_read() -> None:
    first, second, third = parse(SMI)
    assert (first.name, first.driver, first.total_bytes) == ("NVIDIA H200", "580.95.05", 143771 * 2**20)
    assert third.total_bytes == 0
    assert memory_in_use([first]).status == "ok"
    assert memory_in_use([first, second]).found == "9.0 of 140 GiB in use on the fullest device"
    assert memory_in_use([first, second]).status == "warning"
    assert [compute_mode([first]).status, compute_mode([first, second]).status] == ["ok", "fails"]


def test_devices_are_counted_against_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1, get_device_name=lambda index: "NVIDIA H200"
    )
    monkeypatch.setattr(gpus_module, "torch", SimpleNamespace(cuda=fake))
    listed = parse(SMI)[:1]
    assert [one.status for one in devices(run_config(), listed)] == ["ok", "ok", "ok"]
    (few,) = devices(run_config(*TWO), listed)
    assert (few.status, few.found, few.expected) == ("fails", "1 x NVIDIA H200", "2 on each node")
    fake.is_available = lambda: False
    assert devices(None, [])[0].status == "ok"
    assert devices(None, listed)[0].status == "fails"
    assert devices(run_config("parallel.device=cuda"), [])[0].advice == "set parallel.device=cpu"
    assert devices(run_config("parallel.device=cpu"), listed)[0].status == "ok"


def test_open_files_count_what_a_split_maps(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def num_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = num_open()
    maps = [open_split(packed, split) for split in ("train", "validation")]
    num_mapped = num_open() - before
    assert num_mapped == sum(len(shard.maps) for shards in maps for shard in shards)
    config = run_config(*TWO, f"data.dir={packed}")
    needed = 256 + num_mapped + 2
    for limit, status in ((needed, "ok"), (needed - 1, "fails"), (resource.RLIM_INFINITY, "ok")):
        monkeypatch.setattr(host.resource, "getrlimit", lambda which, limit=limit: (limit, limit))
        assert host.open_files(config).status == status
    monkeypatch.setattr(host.resource, "getrlimit", lambda which: (10, 10))
    assert host.open_files(config).advice == f"ulimit -n {needed}"


def test_shared_memory_holds_batches_and_nccl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(*TWO, "data.seq_len=64", "data.num_workers=3")
    needed = 2 * 3 * 2 * (2 * 64 * 5 * 8) + 2**28
    assert host.needed_shared_bytes(config) == needed
    assert host.needed_shared_bytes(run_config()) == 0
    for free, status in ((needed, "ok"), (needed - 1, "fails")):
        monkeypatch.setattr(host.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert host.shared_memory(config, tmp_path).status == status
    assert host.shared_memory(config, tmp_path / "absent").status == "warning"


def test_available_memory_is_the_control_groups(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    5000 kB\n")
    available = (tmp_path / "meminfo", tmp_path)
    assert host.available_bytes(*available) == 5000 * 1024
    (tmp_path / "memory.current").write_text("1000000\n")
    for limit, expected in (("max", 5000 * 1024), ("3000000", 2000000), ("99999999999", 5000 * 1024), ("1000", 0)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert host.available_bytes(*available) == expected


def test_each_rank_builds_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(*TWO)
    weights = sum(4 * parameter.numel() for parameter in Mythos(config.model).parameters())
    needed = 2 * (weights + 2**30)
    assert host.needed_host_bytes(config, on_cpu=False) == needed
    assert host.needed_host_bytes(config, on_cpu=True) >= needed + 2 * 3 * weights, "gradients and two moments as well"
    for available, status in ((needed * 2, "ok"), (int(needed * 1.1), "warning"), (needed - 1, "fails")):
        monkeypatch.setattr(host, "available_bytes", lambda available=available: available)
        assert host.host_memory(config, on_cpu=False).status == status
    assert host.host_memory(None, on_cpu=False).status == "ok"


def test_a_cache_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    assert host.cache("TRITON_CACHE_DIR", folder / "deep").found == f"{folder / 'deep'} can be created"
    folder.mkdir(mode=0o700)
    assert host.cache("TRITON_CACHE_DIR", folder).status == "ok"
    folder.chmod(0o700 | stat.S_IWOTH)
    assert host.cache("TRITON_CACHE_DIR", folder).status == "fails"
    folder.chmod(0o700)
    monkeypatch.setattr(host.os, "getuid", lambda: folder.stat().st_uid + 1)
    refused = host.cache("TORCH_EXTENSIONS_DIR", folder)
    assert (refused.status, refused.check) == ("fails", "extensions")
    assert "set TORCH_EXTENSIONS_DIR to a folder of your own" in refused.advice
    (tmp_path / "file").touch()
    assert host.cache("TRITON_CACHE_DIR", tmp_path / "file" / "x").status == "fails"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    assert host.caches()[0].found == f"{tmp_path / 'file'} cannot be written"


def test_a_cache_in_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "find_spec", lambda name: name)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    quack = host.caches()[-1]
    assert (quack.check, quack.status) == ("quack's cache", "ok")
    monkeypatch.setattr(host, "_owner", lambda path: os.getuid() + 1)
    assert host.caches()[-1].status == "fails"  # it would be created there, and its owner could replace it


def test_the_disk_is_written_to_and_cleaned_up(tmp_path: Path) -> None:
    config = run_config(f"run.dir={tmp_path / 'runs'}", "run.name=a")
    speed, room = storage.disk(config)
    assert str(tmp_path) in speed.found
    assert room.status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(f"run.dir={tmp_path}")
    size = storage.checkpoint_bytes(config)
    for speed, status in (((size / 2, 0.6), "warning"), ((99e6, 0.1), "warning"), ((101e6, 0.4), "ok")):
        monkeypatch.setattr(storage, "measure", lambda folder, speed=speed: storage.DiskSpeed(*speed))
        assert storage.disk(config)[0].status == status
    monkeypatch.setattr(storage, "measure", lambda folder: storage.DiskSpeed(size / 2, 0.1))
    assert "takes 2.0 s with one stream per node" in storage.disk(config)[0].found


@pytest.mark.parametrize("optim", ["adamw", "muon_adamw"])
def test_a_checkpoint_is_as_large_as_estimated(optim: str, packed: Path, tmp_path: Path) -> None:
    small = "data.seq_len=32 data.batch_size=2 data.micro_batch_size=2 depth.mean=2 run.num_steps=1".split()
    small += "run.validation={every: 1, num_batches: 1, num_loops: [1]};schedule.num_warmup_steps=0".split(";")
    config = run_config(*small, f"data.dir={packed}", f"run.dir={tmp_path}", "parallel.device=cpu", f"optim={optim}")
    train(config, prepare(config))
    named = dict(Mythos(config.model).named_parameters())
    tensors = saved(tmp_path / config.run.name, 1)
    of_parameters = {key: value for key, value in tensors.items() if key.split("|")[0] in named and value.numel() > 1}
    assert storage.checkpoint_bytes(config) == sum(4 * value.numel() for value in of_parameters.values())
    room = storage.room(config, 10**12)
    assert room.expected.endswith("for 1 checkpoints of 0.00 GB and one being written, of which 1 exist")


@pytest.mark.parametrize("settings", [(5, 2, None, 0), (5, 3, 20, 0), (1, 1, None, 3), (10, 9, 10, 2), (2, 1, 4, 1)])
def test_no_run_keeps_more_checkpoints_than_estimated(settings: tuple, tmp_path: Path) -> None:
    every, last, milestone, best = settings
    num_steps = 43
    texts = [f"every: {every}", f"keep_last: {last}", f"keep_every: {milestone or 'null'}", f"keep_best: {best}"]
    config = run_config(f"run.num_steps={num_steps}", f"run.checkpoint={{{', '.join(texts)}}}")
    existing: dict[str, dict[str, float]] = {}
    most = 0
    for step in [*range(every, num_steps, every), num_steps]:
        existing[f"step-{step:08d}"] = {"validation_loss": float(step)}  # the first are the best
        existing = {name: existing[name] for name in kept(existing, config.run.checkpoint)}
        most = max(most, len(existing))
    assert most <= storage.num_checkpoints(config) <= most + last


def test_room_does_not_count_existing_checkpoints(tmp_path: Path) -> None:
    config = run_config(f"run.dir={tmp_path}", "run.name=a")
    one = storage.checkpoint_bytes(config)
    assert [storage.room(config, free).status for free in (3 * one, 3 * one - 1)] == ["ok", "fails"]
    (tmp_path / "a" / "checkpoints" / "step-00000200").mkdir(parents=True)
    assert [storage.room(config, free).status for free in (2 * one, 2 * one - 1)] == ["ok", "fails"]


def test_installed_plugins_are_listed_without_importing_them(install) -> None:
    assert installed_plugins() == []
    source = "raise RuntimeError('imported')"
    install("waves", "1.2", source, loop_parts=["tide = waves:A", "drift = waves:B"], trackers=["log = waves:C"])
    install("terms", "0.3", source, loss_terms=["norm = terms:A"], optimizers=["sgd = terms:B"])
    assert [(one.check, one.status, one.found) for one in installed_plugins()] == [
        ("loop parts", "ok", "drift (waves 1.2), tide (waves 1.2)"),
        ("loss terms", "ok", "norm (terms 0.3)"),
        ("optimizers", "ok", "sgd (terms 0.3)"),
        ("trackers", "ok", "log (waves 1.2)"),
    ]
