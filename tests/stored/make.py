"""A small run as a version of mythos left it, and what it gives when it is used again.

``PYTHONPATH=.:tests python tests/stored/make.py`` trains the run, and writes ``run.tar.xz`` and ``expected.json``.
"""

import json
import random
import tarfile
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from mythos.config.load import load
from mythos.config.schema import decode_run

HERE: Final = Path(__file__).parent
ARCHIVE: Final = HERE / "run.tar.xz"
EXPECTED: Final = HERE / "expected.json"
RUN: Final = Path("runs/stored")
PROMPT: Final = torch.tensor([[0, 100, 101]])
NUM_STEPS: Final = 4
NUM_RESUMED: Final = 2
OVERRIDES: Final = """model=debug model.vocab_size=288 model.dim=16 model.attention.num_heads=1 model.ffn.hidden_dim=32
model.core_ffn.hidden_dim=16 model.max_loops=4 model.loop.parts=[{kind:film}] depth.mean=3 depth.max_loops=6
objective.z_loss=1e-4 data.dir=data data.seq_len=32 data.batch_size=4 data.micro_batch_size=2
schedule.num_warmup_steps=2 schedule.cooldown_fraction=0 tracking.log_every=1 telemetry.trace_every=2
run.name=stored run.validation.every=2 run.validation.num_batches=2 run.validation.num_loops=[1,3]
run.checkpoint.every=4 parallel.device=cpu""".split()


def make() -> None:
    """Train the run in an empty folder and pack it, with its data."""
    from data_pipelines.packing.held_out import HeldOutBytes
    from data_pipelines.packing.pack import PackOptions, pack
    from data_pipelines.tokenizer.train import TokenizerOptions, write_tokenizer
    from mythos.train.build import train
    from mythos.train.run_directory import prepare

    words = "the king speaks to his queen of war and peace while night falls upon old england".split()
    generator = random.Random(0)
    with TemporaryDirectory() as folder, chdir(folder):
        Path("text").mkdir()
        for name in "ab":
            lines = (" ".join(generator.choices(words, k=8)) + "\n" for _ in range(150))
            Path("text", f"{name}.txt").write_text("".join(lines))
        held_out = HeldOutBytes(num_bytes=2000)
        write_tokenizer(Path("text"), Path("data"), TokenizerOptions(vocab_size=288), held_out, overwrite=False)
        pack(Path("text"), Path("data"), PackOptions(held_out=held_out))
        config = load([*OVERRIDES, f"run.num_steps={NUM_STEPS}"])
        train(config, prepare(config))
        with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
            for path in ("data", RUN):
                archive.add(path, filter=lambda entry: None if entry.name.endswith(("lock", "provenance")) else entry)
    with TemporaryDirectory() as folder:
        EXPECTED.write_text(json.dumps(used(Path(folder)), indent=1) + "\n")


def used(folder: Path) -> dict[str, Any]:
    """Unpack the run in an empty folder, sample from it, resume it and export it; returns what came out."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    with chdir(folder):
        return {"tokens": sampled(), "losses": resumed(), "exported": exported()}


def sampled() -> list[int]:
    """Five tokens of the checkpoint, the likeliest ones."""
    from mythos.eval.restore import restore
    from mythos.model.generate import generate

    _, model, _ = restore(RUN, torch.device("cpu"))
    return generate(model, PROMPT, 5, 4, 0, None, 0).tokens_BS[0].tolist()


def resumed() -> dict[str, float]:
    """Losses of further steps, and the held-out losses after them."""
    from mythos.train.build import train
    from mythos.train.run_directory import prepare

    path = RUN / "config.json"
    config = decode_run(json.loads(path.read_text()), str(path))
    config = replace(config, resume="auto", run=replace(config.run, num_steps=NUM_STEPS + NUM_RESUMED))
    train(config, prepare(config))
    lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()[1:]]
    names = ("train/loss", "val/loss/T01", "val/loss/T03")
    return {f"{name} at {line['step']}": line[name] for line in lines for name in names if name in line}


def exported() -> list[int]:
    """Five tokens of the resumed run's export, the likeliest ones."""
    from mythos.export.folder import export
    from mythos.export.load import load_export
    from mythos.model.generate import generate

    export(RUN, Path("exported"), None)
    model, _, num_loops = load_export(Path("exported"), json.loads(Path("exported/config.json").read_text()))
    return generate(model.eval(), PROMPT, 5, num_loops, 0, None, 0).tokens_BS[0].tolist()


if __name__ == "__main__":
    make()
