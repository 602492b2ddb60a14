"""Fixtures: a folder of generated English text, and programs whose workers must not outlive them."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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


@pytest.fixture
def workers_end_with(tmp_path: Path) -> Callable[[str, Sequence[Path]], None]:
    """``workers_end_with(program, marks)`` runs a program, kills it, and waits for its workers to be gone.

    Each worker writes its process ID into one of the files ``marks``.
    """

    def run_and_kill(program: str, marks: Sequence[Path]) -> None:
        environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
        )
        while not all(mark.exists() and mark.read_text() for mark in marks):
            assert process.poll() is None
            time.sleep(0.05)
        workers = [int(mark.read_text()) for mark in marks]
        process.kill()
        process.wait()
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            time.sleep(0.05)

    return run_and_kill
