"""Fixture of a folder of generated English text."""

import random
from pathlib import Path

import pytest


@pytest.fixture
def text_directory(tmp_path: Path) -> Path:
    """Three files of about 6 kB with characters of one to four bytes and a spelt-out separator."""
    directory = tmp_path / "text"
    directory.mkdir()
    generator = random.Random(0)
    sentence = "the king shall speak of night and morning while 日本 é 😀 <|endoftext|> don't 1234 sleep"
    for name in ("a.txt", "b.md", "c.txt"):
        lines = [" ".join(generator.choices(sentence.split(), k=9)) for _ in range(40)]
        (directory / name).write_bytes("\r\n".join(lines).encode())
    return directory
