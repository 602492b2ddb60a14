import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from data_pipelines.packing.held_out import HeldOutBytes
from data_pipelines.packing.pack import PackOptions, pack
from data_pipelines.tokenizer.train import TokenizerOptions, write_tokenizer

# A loaded machine must not fail a property.
settings.register_profile("mythos", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mythos")
# A shell starts its background jobs with SIGINT ignored, and they would pass that on to the processes of tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # the tensors of tests are too small for several threads

# transformers reads the variable when it is imported, and keeps one place for all code that it copies.
TRANSFORMERS_MODULES = tempfile.TemporaryDirectory(prefix="mythos-modules-")
os.environ["HF_MODULES_CACHE"] = TRANSFORMERS_MODULES.name

WORDS = "the king speaks to his queen of war and peace while night falls upon old england my lord said he".split()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="overwrite tests/golden with the numbers of this run")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Lightning ignores SIGINT from the first KeyboardInterrupt on, which some tests raise."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed data set of three documents of random words, with a vocabulary of 512 tokens."""
    root = tmp_path_factory.mktemp("corpus")
    text, directory = root / "text", root / "packed"
    text.mkdir()
    rng = random.Random(0)
    for name in "abc":
        lines = (" ".join(rng.choices(WORDS, k=9)) + f" {rng.randrange(10**6)}.\n" for _ in range(400))
        (text / f"{name}.txt").write_text("".join(lines))
    held_out = HeldOutBytes(num_bytes=6000)
    write_tokenizer(text, directory, TokenizerOptions(vocab_size=512), held_out, overwrite=False)
    pack(text, directory, PackOptions(held_out=held_out))
    return directory


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """``install(package, version, source, group=["name = target"])`` puts a distribution of one module on the path.

    The module has the package's name. After the test it is gone, from the path and from the imported modules.
    """
    installed: list[str] = []

    def put(package: str, version: str, source: str, **groups: list[str]) -> None:
        root = tmp_path / f"site-{package}"
        info = root / f"{package}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        sections = [f"[mythos.{group}]\n" + "\n".join(lines) for group, lines in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(sections) + "\n")
        (root / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(root)
        installed.append(package)

    yield put
    for package in installed:
        sys.modules.pop(package, None)
