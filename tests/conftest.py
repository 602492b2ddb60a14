import random
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from data_pipelines.packing.held_out import HeldOutBytes
from data_pipelines.packing.pack import PackOptions, pack
from data_pipelines.tokenizer.train import TokenizerOptions, write_tokenizer

settings.register_profile("house", deadline=None, derandomize=True)  # a busy machine must not fail a property
settings.load_profile("house")
torch.set_num_threads(1)  # the tensors of tests are too small to share

WORDS = "the king speaks to his queen of war and peace while night falls upon old england my lord said he".split()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from this run")


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed data set of three documents of nonsense, 512 tokens in its vocabulary."""
    root = tmp_path_factory.mktemp("corpus")
    text, directory = root / "text", root / "packed"
    text.mkdir()
    dice = random.Random(0)
    for name in "abc":
        lines = (" ".join(dice.choices(WORDS, k=9)) + f" {dice.randrange(10**6)}.\n" for _ in range(400))
        (text / f"{name}.txt").write_text("".join(lines))
    held_out = HeldOutBytes(num_bytes=6000)
    write_tokenizer(text, directory, TokenizerOptions(vocab_size=512), held_out, overwrite=False)
    pack(text, directory, PackOptions(held_out=held_out))
    return directory
