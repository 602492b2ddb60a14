import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import save_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file
from test_store import SHAPES, manifest, whole, write

from mythos.checkpoint.fragments import Fragment, FragmentReader
from mythos.checkpoint.store import Saving
from mythos.cli.main import main


def write_mixed(directory: Path) -> Path:
    """Write two ranks' halves of a matrix, its moments, an integer buffer and a scalar."""
    generator = torch.Generator().manual_seed(0)
    matrix_N = torch.randn(35, generator=generator)
    shapes = {"w": (5, 7), "bias": (3,), "count": (2,), "scale": ()}
    first = Saving(directory, 12, 0, 2)
    first.begin()
    buffers = [
        Fragment("bias", "weight", 0, torch.tensor([1.0, 2.0, 1 / 3], dtype=torch.float64)),
        Fragment("count", "weight", 0, torch.tensor([3, 2**40])),
        Fragment("scale", "weight", 0, torch.tensor([0.1], dtype=torch.bfloat16)),
    ]
    moments = [Fragment("w", "exp_avg", 0, matrix_N * 2), Fragment("w", "step", 0, torch.tensor([12.0]))]
    Saving(directory, 12, 1, 2).write([Fragment("w", "weight", 17, matrix_N[17:]), *buffers], shapes, None)
    first.write([Fragment("w", "weight", 0, matrix_N[:17]), *moments, *buffers], shapes, {})
    return first.finish(manifest(12), timeout_seconds=0)


@pytest.mark.parametrize("dtype", [None, "fp32", "bf16"])
def test_the_file_equals_what_the_reader_reads(tmp_path: Path, capsys, dtype: str | None) -> None:
    checkpoint = write_mixed(tmp_path / "run" / "checkpoints")
    target = tmp_path / "model.safetensors"
    options = [] if dtype is None else ["--dtype", dtype]
    assert main(["consolidate", str(tmp_path / "run"), "--to", str(target), *options]) == 0
    assert "4 tensors, 41 elements" in capsys.readouterr().out
    reader, loaded = FragmentReader(checkpoint), load_file(target)
    assert sorted(loaded) == ["bias", "count", "scale", "w"]
    cast = {None: None, "fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    for name, tensor in loaded.items():
        expected = reader.tensor(name)
        expected = expected.to(cast) if cast is not None and name != "count" else expected
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected)
    with safe_open(target, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "fingerprint": "f", "step": "12", "code_version": "0"}


def test_a_checkpoint_directory_is_accepted_and_an_older_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    target.write_text("old")
    older = write(tmp_path / "checkpoints", 1)
    write(tmp_path / "checkpoints", 2)
    assert main(["consolidate", str(older), "--to", str(target)]) == 0
    assert torch.equal(load_file(target)["a"], whole("a", 1).view(SHAPES["a"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "model.safetensors"]


@pytest.mark.parametrize("case", ["nowhere", "damaged", "inside"])
def test_errors_name_the_problem(tmp_path: Path, capsys, case: str) -> None:
    checkpoint = write(tmp_path / "checkpoints", 1)
    source, target, message = checkpoint, tmp_path / "model.safetensors", ""
    match case:
        case "nowhere":
            source, message = tmp_path / "absent", "no checkpoint that verifies"
        case "damaged":
            (checkpoint / "state.json").write_text("{}")
            message = "state.json was altered"
        case "inside":
            target, message = checkpoint / "model.safetensors", "lies in the checkpoint"
    assert main(["consolidate", str(source), "--to", str(target)]) == 2
    assert message in capsys.readouterr().err
    assert not target.exists()


MEASURED = """
import sys
from pathlib import Path
import torch
from mythos.checkpoint.consolidate import consolidate
from mythos.checkpoint.fragments import FragmentReader

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

checkpoint, small, target = map(Path, sys.argv[1:])
consolidate(small, target, None)  # loads what is imported at first use
start = peak()
consolidate(checkpoint, target, None)
streamed = peak()
reader = FragmentReader(checkpoint)
everything = [reader.tensor(name) for name in reader.names]
print(streamed - start, peak() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    num_tensors, numel = 20, 2**21
    names = [f"blocks.{number}.w" for number in range(num_tensors)]
    fragments = [Fragment(name, "weight", 0, torch.full((numel,), float(len(name)))) for name in names]
    checkpoint = save_checkpoint(tmp_path / "large", manifest(1), fragments, dict.fromkeys(names, (2, numel // 2)), {})
    paths = [checkpoint, write(tmp_path / "small", 1), tmp_path / "model.safetensors"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    streamed, everything = map(int, done.stdout.split())
    assert streamed < 3 * numel * 4
    assert everything > num_tensors * numel * 4 * 0.9  # the measurement includes the tensors
    assert len(load_file(tmp_path / "model.safetensors")) == num_tensors
