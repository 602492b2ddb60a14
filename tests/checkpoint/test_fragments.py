import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mythos.checkpoint.fragments import Fragment, FragmentReader, checksum, write_shard
from mythos.config.base import ConfigError

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.float16, torch.uint8, torch.bool]


def random_tensor(numel: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(numel, generator=generator, dtype=torch.float64) * 50).to(dtype)


def bounds(draw: st.DrawFn, numel: int, num_parts: int) -> list[int]:
    """Boundaries that cut a range into ``num_parts`` parts, some of them empty."""
    cuts = draw(st.lists(st.integers(0, numel), min_size=num_parts - 1, max_size=num_parts - 1))
    return [0, *sorted(cuts), numel]


@st.composite
def sharded_tensors(draw: st.DrawFn) -> tuple[dict[str, Tensor], list[list[Fragment]], list[tuple[str, int, int]]]:
    """Tensors, their pieces on 1 to 5 writers, and the ranges that another layout asks for."""
    num_writers, num_readers = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    shapes = draw(st.lists(st.lists(st.integers(0, 7), max_size=3).map(tuple), min_size=1, max_size=4))
    writers: list[list[Fragment]] = [[] for _ in range(num_writers)]
    tensors, ranges = {}, []
    for number, shape in enumerate(shapes):
        name, dtype = f"blocks.{number}.w", draw(st.sampled_from(DTYPES))
        whole_N = random_tensor(torch.Size(shape).numel(), dtype, number)
        tensors[name] = whole_N.view(shape)
        cuts = bounds(draw, len(whole_N), num_writers)
        order = draw(st.permutations(range(num_writers)))
        for writer, start, stop in zip(order, cuts[:-1], cuts[1:], strict=True):
            writers[writer].append(Fragment(name, "weight", start, whole_N[start:stop]))
        cuts = bounds(draw, len(whole_N), num_readers)
        ranges += [(name, start, stop) for start, stop in itertools.pairwise(cuts)]
    return tensors, writers, ranges


@given(sharded_tensors())
def test_any_layout_reads_what_any_other_wrote(tmp_path_factory: pytest.TempPathFactory, sharded) -> None:
    tensors, writers, ranges = sharded
    directory = tmp_path_factory.mktemp("shards")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for rank, fragments in enumerate(writers):
        write_shard(directory / f"shard-{rank:05d}-of-{len(writers):05d}.safetensors", fragments, shapes)
    reader = FragmentReader(directory)
    assert reader.names == sorted(tensors)
    for name, tensor in tensors.items():
        assert reader.shape(name) == tuple(tensor.shape)
        assert reader.dtype(name) == tensor.dtype
        assert torch.equal(reader.tensor(name), tensor)
        parts = [checksum(part.value_N, part.start) for part in itertools.chain(*writers) if part.name == name]
        assert sum(parts) % 2**64 == checksum(tensor.flatten(), 0)
    for name, start, stop in ranges:
        assert torch.equal(reader.read(name, "weight", start, stop - start), tensors[name].flatten()[start:stop])


def write(directory: Path, *shards: list[Fragment], shape: tuple[int, ...] = (2, 5)) -> FragmentReader:
    for rank, fragments in enumerate(shards):
        path = directory / f"shard-{rank:05d}-of-{len(shards):05d}.safetensors"
        write_shard(path, fragments, {part.name: shape for part in fragments})
    return FragmentReader(directory)


def test_the_librarys_reader_reads_a_shard(tmp_path: Path) -> None:
    values = {dtype: random_tensor(7, dtype) for dtype in DTYPES}
    write(tmp_path, [Fragment(str(dtype), "weight", 3, value_N) for dtype, value_N in values.items()])
    with safe_open(tmp_path / "shard-00000-of-00001.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["shapes"])["torch.bool"] == [2, 5]
        assert set(file.keys()) == {f"{dtype}|weight|3" for dtype in DTYPES}
        for dtype, value_N in values.items():
            assert file.get_tensor(f"{dtype}|weight|3").dtype == dtype
            assert torch.equal(file.get_tensor(f"{dtype}|weight|3"), value_N)
            assert torch.equal(file.get_slice(f"{dtype}|weight|3")[2:5], value_N[2:5])


def test_optimiser_fields_are_stored_beside_the_weight(tmp_path: Path) -> None:
    weight_N, moment_N = random_tensor(10, torch.bfloat16), random_tensor(10, torch.float32)
    step = torch.tensor([7.0])
    reader = write(
        tmp_path,
        [Fragment("w", "weight", 0, weight_N), Fragment("w", "exp_avg", 0, moment_N[:4])],
        [Fragment("w", "exp_avg", 4, moment_N[4:]), Fragment("w", "step", 0, step)],
    )
    assert reader.fields("w") == {"weight", "exp_avg", "step"}
    assert torch.equal(reader.tensor("w", "exp_avg"), moment_N.view(2, 5))
    assert reader.tensor("w", "step").shape == ()
    assert reader.tensor("w", "step").item() == 7
    assert reader.tensor("w").dtype == torch.bfloat16


def test_pieces_that_share_memory_are_written(tmp_path: Path) -> None:
    flat_N = random_tensor(20, torch.float32)
    reader = write(tmp_path, [Fragment("a", "weight", 0, flat_N[:10]), Fragment("b", "weight", 0, flat_N[10:])])
    assert torch.equal(torch.cat([reader.read("a", "weight"), reader.read("b", "weight")]), flat_N)


def test_the_first_of_several_replicas_is_read(tmp_path: Path) -> None:
    first_N, second_N = torch.zeros(6), torch.ones(10)
    reader = write(tmp_path, [Fragment("w", "weight", 0, first_N)], [Fragment("w", "weight", 0, second_N)])
    assert reader.read("w", "weight").tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "field", "start", "length", "message"),
    [
        ("w", "weight", 0, None, r"element 3 of w \(weight\) is in no shard"),
        ("w", "weight", 8, 3, r"element 10 of w \(weight\) is in no shard"),
        ("w", "momentum", 0, None, r"w has no momentum; its fields are \['weight'\]"),
        ("v", "weight", 0, None, "no tensor named v"),
    ],
)
def test_a_missing_tensor_field_or_element_is_named(tmp_path: Path, name, field, start, length, message) -> None:
    value_N = random_tensor(10, torch.float32)
    reader = write(tmp_path, [Fragment("w", "weight", 0, value_N[:3])], [Fragment("w", "weight", 4, value_N[4:])])
    assert torch.equal(reader.read("w", "weight", 5, 4), value_N[5:9])
    with pytest.raises(ConfigError, match=message):
        reader.read(name, field, start, length)


def test_missing_truncated_and_contradicting_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no shard-\*"):
        FragmentReader(tmp_path)
    write(tmp_path, [Fragment("w", "weight", 0, torch.ones(10))])
    path = tmp_path / "shard-00000-of-00001.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:20], whole[:4], whole + b"x", b"\xff" * 100, b""):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="not a complete safetensors file"):
            FragmentReader(tmp_path)
    path.write_bytes(whole)
    write_shard(tmp_path / "shard-00001.safetensors", [Fragment("w", "weight", 0, torch.ones(6))], {"w": (3, 2)})
    with pytest.raises(ConfigError, match=r"w has shape \(3, 2\), elsewhere \(2, 5\)"):
        FragmentReader(tmp_path)
    write_shard(tmp_path / "shard-00001.safetensors", [Fragment("w", "weight", 0, torch.ones(6).half())], {"w": (2, 5)})
    with pytest.raises(ConfigError, match=r"float16, elsewhere torch\.float32"):
        FragmentReader(tmp_path)


@pytest.mark.parametrize(("key", "message"), [("w", "w is not name|field|start"), ("w|weight|0", "w has no shape")])
def test_a_file_of_other_tensors_is_no_shard(tmp_path: Path, key: str, message: str) -> None:
    save_file({key: torch.ones(3)}, tmp_path / "shard-00000-of-00001.safetensors")
    with pytest.raises(ConfigError, match=re.escape(message)):
        FragmentReader(tmp_path)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_checksums_of_fragments_add_up_to_the_whole(dtype: torch.dtype) -> None:
    value_N = random_tensor(600_001, dtype)  # several chunks
    whole = checksum(value_N, 0)
    for cuts in ([0, 600_001], [0, 1, 65_536, 65_537, 600_001], [0, 300_000, 300_000, 600_001]):
        parts = [checksum(value_N[start:stop], start) for start, stop in itertools.pairwise(cuts)]
        assert sum(parts) % 2**64 == whole
    assert checksum(value_N[:0], 0) == 0


def test_a_checksum_follows_its_formula() -> None:
    value_N = torch.tensor([1.0, -2.5, 0.0])
    mask, expected = 2**64 - 1, 0
    for index, bits in enumerate(value_N.view(torch.int32).tolist(), start=40):
        mixed = ((bits & 0xFFFFFFFF) + (index + 1) * 0x9E3779B97F4A7C15) & mask
        mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 & mask
        expected += mixed ^ mixed >> 32
    assert checksum(value_N, 40) == expected & mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64], ids=str)
def test_every_changed_bit_changes_a_checksum(dtype: torch.dtype) -> None:
    value_N = random_tensor(37, dtype)
    seen = {checksum(value_N, 0)}
    for bit in range(37 * dtype.itemsize * 8):
        changed_N = value_N.clone()
        changed_N.view(torch.uint8)[bit // 8] ^= 1 << bit % 8
        seen.add(checksum(changed_N, 0))
    assert len(seen) == 1 + 37 * dtype.itemsize * 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64], ids=str)
def test_swapped_elements_change_a_checksum(dtype: torch.dtype) -> None:
    """Holds for distances of powers of two and values of few bits, where value times position would collide."""
    value_N = torch.zeros(2**14, dtype=dtype)
    value_N[0] = 1
    checksums = {checksum(torch.roll(value_N, shift), 0) for shift in range(0, 2**14, 64)}
    assert len(checksums) == 2**8


@pytest.mark.parametrize(
    "item",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]},
        {"dtype": "object", "shape": [4], "data_offsets": [0, 16]},
    ],
)
def test_an_inconsistent_header_is_refused(tmp_path: Path, item: dict) -> None:
    path = tmp_path / "shard-00000-of-00001.safetensors"
    valid = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    for tensors in ({"a|weight|0": valid}, {"a|weight|0": valid, "b|weight|0": item}):
        text = json.dumps({"__metadata__": {"shapes": '{"a": [4], "b": [4]}'}, **tensors}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
        if len(tensors) == 1:
            assert FragmentReader(tmp_path).names == ["a"]
    with pytest.raises(ConfigError, match="not a complete safetensors file"):
        FragmentReader(tmp_path)
