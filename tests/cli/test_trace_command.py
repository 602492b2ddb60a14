import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_model, run_config

from mythos.checkpoint.manifest import Manifest
from mythos.cli.main import main
from mythos.config.run import RunConfig
from mythos.data.manifest import data_fingerprint
from mythos.data.tokenizer import load_tokenizer
from mythos.eval import restore as restoring
from mythos.model.mythos import Mythos

PROMPT = "the king speaks to his queen"


@pytest.fixture
def run(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose checkpoint holds a random model."""
    config = run_config(f"data.dir={packed}", "depth.mean=3", "run.name=short")
    model = random_model(config.model).eval()

    checkpoint = argparse.Namespace(step=6, data_fingerprint=data_fingerprint([str(packed)]))

    def restore(directory: Path, device: torch.device) -> tuple[RunConfig, Mythos, Manifest]:
        assert directory == tmp_path
        return config, model.to(device), checkpoint

    monkeypatch.setattr(restoring, "restore", restore)
    return tmp_path


def test_trace_writes_a_page_and_arrays_at_the_mean_depth(run: Path, packed: Path, capsys) -> None:
    assert main(["trace", str(run), "--prompt", PROMPT]) == 0
    folder = run / "trace"
    assert capsys.readouterr().out.split() == [str(folder / "index.html"), str(folder / "trace.npz")]
    arrays = np.load(folder / "trace.npz")
    tokens = load_tokenizer(packed).encode(PROMPT).ids
    assert arrays["token_S"].tolist() == [0, *tokens]
    assert arrays["attention_TCHSS"].shape == (3, 2, 2, len(tokens) + 1, len(tokens) + 1)
    words = dict(zip(arrays["word_id_W"].tolist(), arrays["word_W"].tolist(), strict=True))
    assert "".join(words[token] for token in tokens) == PROMPT
    assert "<h1>short</h1>" in (folder / "index.html").read_text()


def test_loops_layers_heads_and_folder_can_be_selected(run: Path, tmp_path: Path) -> None:
    options = ["--num-loops", "5", "--layers", "1", "--heads", "1", "0", "1", "--to", str(tmp_path / "there")]
    assert main(["trace", str(run), "--prompt", PROMPT, *options]) == 0
    arrays = np.load(tmp_path / "there" / "trace.npz")
    assert arrays["attention_TCHSS"].shape[:3] == (5, 1, 2)
    assert (arrays["layer_C"].tolist(), arrays["head_H"].tolist()) == ([1], [0, 1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--prompt", ""], "--prompt: 0 characters were given; give at least 1"),
        (["--prompt", "king", "--num-loops", "0"], "--num-loops: 0 was given; the core runs at least once"),
        (["--prompt", "king", "--layers", "2"], "--layers: 2 was given, but the model has 2 core layers"),
        (["--prompt", "king", "--layers", "-1"], "--layers: -1 was given"),
        (
            ["--prompt", "king", "--heads", "0", "7"],
            "--heads: 7 was given, but the model has 2 heads; give",
        ),
        (["--prompt", "king " * 400], "including the one that opens the document, more than the model's 256"),
    ],
)
def test_a_mistake_is_one_sentence_with_both_numbers(run: Path, options: list[str], sentence: str, capsys) -> None:
    assert main(["trace", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (run / "trace").exists()


def test_a_text_with_too_many_weights_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("mythos.eval.trace.MAX_WEIGHTS", 50)
    assert main(["trace", str(run), "--prompt", PROMPT, "--layers", "0", "--heads", "0", "--num-loops", "2"]) == 2
    assert "makes 2 attention maps of" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_sentence(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["trace", str(run), "--prompt", PROMPT, "--to", str(tmp_path / "file")]) == 2
    assert "the trace cannot be written" in capsys.readouterr().err
