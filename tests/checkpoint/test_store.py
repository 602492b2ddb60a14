import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import save_checkpoint

from mythos.checkpoint.fragments import Fragment, FragmentReader, checksum
from mythos.checkpoint.manifest import Manifest, manifest_text, read_manifest, verify
from mythos.checkpoint.store import Saving, checkpoints, keep, newest
from mythos.config.base import ConfigError, decode
from mythos.config.records import SCHEMA
from mythos.config.run import CheckpointConfig
from mythos.config.schema import OtherSchema

SHAPES = {"a": (4, 3), "b": (5,)}


def manifest(step: int, **metrics: float) -> Manifest:
    return Manifest(
        step=step,
        tokens=step * 10,
        next_sample=step,
        config={},
        fingerprint="f",
        data_fingerprint="d",
        code_version="0",
        layout={"kind": "single", "world_size": 1, "ep_size": 1, "zero_stage": 0},
        metrics=metrics,
    )


def whole(name: str, step: int) -> torch.Tensor:
    return torch.arange(torch.Size(SHAPES[name]).numel(), dtype=torch.float32) + step


def pieces(step: int, rank: int = 0, world_size: int = 1) -> list[Fragment]:
    """Fragments of one rank: its share of ``a`` and a replica of ``b``."""
    cuts = [12 * one // world_size for one in range(world_size + 1)]
    start, stop = cuts[rank], cuts[rank + 1]
    return [Fragment("a", "weight", start, whole("a", step)[start:stop]), Fragment("b", "weight", 0, whole("b", step))]


def write(directory: Path, step: int, **metrics: float) -> Path:
    return save_checkpoint(directory, manifest(step, **metrics), pieces(step), SHAPES, {"position": step})


def write_part(directory: Path, step: int, rank: int, world_size: int) -> None:
    state = {"position": step} if rank == 0 else None
    Saving(directory, step, rank, world_size).write(pieces(step, rank, world_size), SHAPES, state)


def settings(**values: int) -> CheckpointConfig:
    return decode(CheckpointConfig, {"every": 1, **values})


def names(directory: Path) -> list[str]:
    return [path.name for path in checkpoints(directory)]


def test_a_checkpoint_verifies_and_lists_its_files_and_checksums(tmp_path: Path) -> None:
    path = write(tmp_path, 7)
    result = verify(path)
    assert result.step == 7
    assert sorted(result.files) == ["shard-00000-of-00001.safetensors", "state.json"]
    assert result.checksums == {f"{name}|weight": f"{checksum(whole(name, 7), 0):016x}" for name in SHAPES}
    assert json.loads((path / "state.json").read_text()) == {"position": 7}
    assert (tmp_path / "latest").read_text() == "step-00000007\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["latest", "step-00000007"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_ranks_write_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    first = Saving(tmp_path, 4, 0, 3)
    first.begin()
    for rank in order:
        write_part(tmp_path, 4, rank, 3)
    path = first.finish(manifest(4), timeout_seconds=0)
    assert verify(path).checksums == {f"{name}|weight": f"{checksum(whole(name, 4), 0):016x}" for name in SHAPES}
    assert sorted(one.name for one in path.iterdir()) == [
        "manifest.json",
        *(f"shard-{rank:05d}-of-00003.safetensors" for rank in range(3)),
        "state.json",
    ]
    reader = FragmentReader(path)
    assert all(torch.equal(reader.read(name, "weight"), whole(name, 4)) for name in SHAPES)


def test_ranks_are_processes_and_finish_waits_for_them(tmp_path: Path) -> None:
    first = Saving(tmp_path, 4, 0, 2)
    first.begin()
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=write_part, args=(tmp_path, 4, rank, 2)) for rank in (1, 0)]
    for process in ranks:
        process.start()
    path = first.finish(manifest(4), timeout_seconds=1500)
    for process in ranks:
        process.join()
    assert torch.equal(FragmentReader(path).tensor("a"), whole("a", 4).view(4, 3))
    assert verify(path).step == 4


def test_a_rank_that_never_finishes_is_named_and_older_checkpoints_stay(tmp_path: Path) -> None:
    write(tmp_path, 1)
    first = Saving(tmp_path, 2, 0, 3)
    first.begin()
    write_part(tmp_path, 2, 0, 3)
    write_part(tmp_path, 2, 2, 3)
    with pytest.raises(ConfigError, match=r"1 of 3 ranks .* step 2 within 0.3 seconds \(the first is rank 1\)"):
        first.finish(manifest(2), timeout_seconds=0.3)
    assert newest(tmp_path, print)[1].step == 1
    assert (tmp_path / ".step-00000002.tmp" / "shard-00002-of-00003.safetensors").exists()
    assert (tmp_path / "latest").read_text() == "step-00000001\n"
    write(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001", "step-00000003"]


def test_a_rank_that_cannot_write_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rank 1 cannot write its part of step 2 .*No such file"):
        write_part(tmp_path, 2, 1, 2)


def test_pieces_with_a_gap_are_refused(tmp_path: Path) -> None:
    short = [Fragment("a", "weight", 0, whole("a", 1)[:11])]
    with pytest.raises(ConfigError, match=r"pieces of a\|weight leave a gap"):
        save_checkpoint(tmp_path, manifest(1), short, {"a": SHAPES["a"]}, {})
    with pytest.raises(ConfigError, match="no rank has written anything of a;"):
        save_checkpoint(tmp_path, manifest(1), [Fragment("b", "weight", 0, whole("b", 1))], SHAPES, {})
    assert newest(tmp_path, print) is None


def test_pieces_may_overlap_as_long_as_some_of_them_join(tmp_path: Path) -> None:
    a_N = whole("a", 1)
    parts = [Fragment("a", "weight", start, a_N[start:stop]) for start, stop in ((0, 5), (5, 12))]
    first = Saving(tmp_path, 1, 0, 2)
    first.begin()
    first.write([*parts, Fragment("b", "weight", 0, whole("b", 1))], SHAPES, {})
    Saving(tmp_path, 1, 1, 2).write(
        [Fragment("a", "weight", 3, a_N[3:8]), Fragment("a", "weight", 0, a_N)], SHAPES, None
    )
    assert first.finish(manifest(1), timeout_seconds=0) == tmp_path / "step-00000001"
    assert read_manifest(tmp_path / "step-00000001").checksums["a|weight"] == f"{checksum(a_N, 0):016x}"


def test_a_directory_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"rank 0 cannot begin step 1 .*Not a directory"):
        save_checkpoint(tmp_path / "file" / "checkpoints", manifest(1), pieces(1), SHAPES, {})


KILLED = """
import os, signal, sys
from pathlib import Path
from mythos.checkpoint import store
from helpers import save_checkpoint
from test_store import SHAPES, manifest, pieces
moment = sys.argv[2]
if moment in ("write", "after renaming"):
    original = store.write_text
    def dying(path, text):
        if (path.name == "latest") == (moment == "after renaming"):
            os.kill(os.getpid(), signal.SIGKILL)
        original(path, text)
    store.write_text = dying
else:
    def dying(temporary, directory):
        os.kill(os.getpid(), signal.SIGKILL)
    store.install = dying
save_checkpoint(Path(sys.argv[1]), manifest(2), pieces(2), SHAPES, {})
"""


@pytest.mark.parametrize(
    ("moment", "survivor"), [("write", 1), ("before renaming", 1), ("after renaming", 2)], ids=lambda value: str(value)
)
def test_a_kill_leaves_a_valid_checkpoint_and_leftovers_are_removed(tmp_path: Path, moment: str, survivor: int) -> None:
    write(tmp_path, 1)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / ".step-00000002.tmp").exists() == (survivor == 1)
    path, result = newest(tmp_path, pytest.fail)
    assert (path.name, result.step) == (f"step-{survivor:08d}", survivor)
    assert (tmp_path / "latest").read_text() == "step-00000001\n"
    write(tmp_path, 3)
    assert not list(tmp_path.glob(".*"))
    assert newest(tmp_path, pytest.fail)[1].step == 3


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, 3)
    again = save_checkpoint(tmp_path, manifest(3), pieces(30), SHAPES, {})
    verify(again)
    assert torch.equal(FragmentReader(again).read("b", "weight"), whole("b", 30))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "add", "state", "manifest", "fields", "no manifest"])
def test_damage_is_named_and_the_previous_checkpoint_is_used(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 1)
    last = write(tmp_path, 2)
    shard = last / "shard-00000-of-00001.safetensors"
    content = shard.read_bytes()
    match damage:
        case "flip":
            shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "truncate":
            shard.write_bytes(content[:-1])
        case "delete":
            shard.unlink()
        case "add":
            (last / "stranger.bin").write_bytes(b"")
        case "state":
            (last / "state.json").write_text("{}")
        case "manifest":
            (last / "manifest.json").write_text(f'{{"version": {SCHEMA}, "st')
        case "fields":
            (last / "manifest.json").write_text(f'{{"version": {SCHEMA}, "step": 2}}')
        case "no manifest":
            (last / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="step-00000002"):
        verify(last)
    warnings: list[str] = []
    path, result = newest(tmp_path, warnings.append)
    assert (path.name, result.step) == ("step-00000001", 1)
    assert len(warnings) == 1


@pytest.mark.parametrize("version", [1, 9])
def test_another_format_is_refused_with_both_numbers(tmp_path: Path, version: int) -> None:
    path = write(tmp_path, 1) / "manifest.json"
    path.write_text(manifest_text(json.loads(path.read_text()) | {"version": version}))
    with pytest.raises(ConfigError, match=f"by schema {version}, but this version of mythos reads schema {SCHEMA};"):
        read_manifest(path.parent)
    with pytest.raises(OtherSchema):
        newest(tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../other", "a/../../b"])
def test_a_manifest_that_names_files_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, 1) / "manifest.json"
    raw = json.loads(path.read_text())
    raw["files"][name] = "0" * 64
    path.write_text(manifest_text(raw))
    with pytest.raises(ConfigError, match="not inside the checkpoint"):
        read_manifest(path.parent)


def test_a_link_out_of_a_checkpoint_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "here", 1)
    (tmp_path / "elsewhere").write_bytes((path / "state.json").read_bytes())
    (path / "state.json").unlink()
    (path / "state.json").symlink_to(tmp_path / "elsewhere")
    for read in (read_manifest, verify):
        with pytest.raises(ConfigError, match=r"names the file state\.json, a link that leads out of the checkpoint"):
            read(path)
    assert newest(tmp_path / "here", lambda text: None) is None


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write(tmp_path, 1, validation_loss=2.5)
    again = read_manifest(path)
    assert (again.metrics, again.layout["kind"], again.tokens) == ({"validation_loss": 2.5}, "single", 10)


def test_without_checkpoints_there_is_no_newest(tmp_path: Path) -> None:
    assert newest(tmp_path / "absent", print) is None
    assert keep(tmp_path / "absent", settings()) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"keep_last": 2}, [5, 6]),
        ({"keep_last": 1, "keep_every": 3}, [3, 6]),
        ({"keep_last": 1, "keep_best": 2}, [2, 4, 6]),
        ({"keep_last": 1, "keep_best": 9}, [1, 2, 3, 4, 6]),
        ({"keep_last": 9}, [1, 2, 3, 4, 5, 6]),
    ],
    ids=str,
)
def test_the_last_the_multiples_and_the_best_are_kept(tmp_path: Path, values: dict, expected: list[int]) -> None:
    losses = {1: 3.0, 2: 1.5, 3: 2.5, 4: 1.5, 5: float("nan")}
    for step in range(1, 7):
        write(tmp_path, step, **({"validation_loss": losses[step]} if step in losses else {"other": 0.0}))
    deleted = keep(tmp_path, settings(**values))
    assert names(tmp_path) == [f"step-{step:08d}" for step in expected]
    assert len(deleted) == 6 - len(expected)


def test_the_newest_valid_one_stays_even_if_later_ones_are_damaged(tmp_path: Path, capsys) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    (tmp_path / "step-00000003" / "state.json").unlink()
    assert [path.name for path in keep(tmp_path, settings(keep_last=1))] == ["step-00000001"]
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    assert "state.json is missing" in capsys.readouterr().err


def test_a_save_never_deletes_itself_in_favour_of_a_later_one_that_was_skipped(tmp_path: Path) -> None:
    for step in (9, 5):
        write(tmp_path, step)
    last = write(tmp_path, 6)
    keep(tmp_path, settings(keep_last=1), valid=last)
    assert names(tmp_path) == ["step-00000006", "step-00000009"]
