"""The exported folder: its contents, its use without the package, and the errors of export."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mythos.cli.main import main
from mythos.config.records import SCHEMA
from mythos.data.tokenizer import load_tokenizer
from mythos.export.card import held_out_losses
from mythos.export.folder import export
from mythos.model.generate import generate

PROMPTS = ["the king speaks to his queen", "of war"]
FILES = """README.md config.json configuration_mythos.py generation_config.json model.safetensors modeling_mythos.py
special_tokens_map.json tokenizer.json tokenizer_config.json""".split()

USER = """
import sys
sys.modules["mythos"] = None  # as if it were not installed
import json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
folder, *prompts = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
text = model.generate(**inputs, max_new_tokens=6, eos_token_id=None)
with torch.no_grad():
    logits = model(inputs.input_ids[:1], num_loops=2).logits
model.save_pretrained(folder + "-again")
again = AutoModelForCausalLM.from_pretrained(folder + "-again", trust_remote_code=True)
with torch.no_grad():
    same = torch.equal(again(inputs.input_ids[:1], num_loops=2).logits, logits)
print(json.dumps({"ids": inputs.input_ids.tolist(), "mask": inputs.attention_mask.tolist(), "text": text.tolist(),
                  "logits": logits.tolist(), "same": same}))
"""


def test_a_process_without_mythos_generates_the_text_of_the_model(save_run, packed: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = save_run(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    variables = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", USER, str(tmp_path / "out"), *PROMPTS],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    tokenizer = load_tokenizer(packed)
    rows = [[0, *tokenizer.encode(prompt).ids] for prompt in PROMPTS]
    padding = len(rows[0]) - len(rows[1])
    assert result["ids"] == [rows[0], [0] * padding + rows[1]]
    assert result["mask"] == [[1] * len(rows[0]), [0] * padding + [1] * len(rows[1])]
    for row, text in zip(rows, result["text"], strict=True):
        assert text[len(rows[0]) :] == generate(model, torch.tensor([row]), 6, 3, 0, None, 0).tokens_BS[0].tolist()
    expected = model.decode(torch.tensor(rows[:1]), model.new_cache(2, None))
    torch.testing.assert_close(torch.tensor(result["logits"]), expected, rtol=1e-5, atol=1e-5)
    assert result["same"]


def test_the_chat_template_of_the_tokenizer_is_exported(save_run, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_run(tmp_path / "run")
    (tmp_path / "run" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    export(tmp_path / "run", tmp_path / "hf", None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) == "hello!"


def test_the_card_describes_the_training(save_run, tmp_path: Path) -> None:
    save_run(tmp_path / "run")
    lines = [
        {"schema": SCHEMA},
        {"step": 2, "val/loss/T01": 5.5, "val/loss/T08": 5.25},
        {"step": 6, "val/loss/T01": 4.0},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 3, "va'
    (tmp_path / "run" / "metrics.jsonl").write_text(text)
    assert held_out_losses(tmp_path / "run" / "metrics.jsonl", 4) == (2, {1: 5.5, 8: 5.25})
    export(tmp_path / "run", tmp_path / "out", 4)
    card = (tmp_path / "out" / "README.md").read_text()
    for part in (
        "at step 2:\n\n| loops | loss |\n|---|---|\n| 1 | 5.5000 |\n| 8 | 5.2500 |",
        "0.1.0+abc",
        "512 in seq",
    ):
        assert part in card
    assert '"core_ffn"' in card


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--step", "3"], "--step: {run} holds no checkpoint of step 3; finished steps: 4."),
        (["--step", "8"], "--step: the checkpoint of step 8 was never finished; finished steps: 4."),
        (["--step", "9"], "no checkpoint here (manifest.json is missing)"),
        (["--to", "{full}"], "--to {full}: it exists and is not an empty folder; name a folder that is new or empty."),
        (["--to", "{run}/checkpoints/out"], "the folder is among the run's checkpoints"),
        (["--to", "/proc/out"], "--to /proc/out: it cannot be written"),
    ],
)
def test_export_errors_are_one_line(options: list[str], sentence: str, save_run, tmp_path: Path, capsys) -> None:
    paths = {"run": tmp_path / "run", "full": tmp_path / "full"}
    save_run(paths["run"])
    (paths["run"] / "checkpoints" / ".step-00000008.tmp").mkdir()
    if "--step" in options:
        (paths["run"] / "checkpoints" / "step-00000009").mkdir()
    paths["full"].mkdir()
    (paths["full"] / "notes.txt").touch()
    given = [option.format(**paths) for option in options]
    to = [] if "--to" in given else ["--to", str(tmp_path / "out")]
    assert main(["export", str(paths["run"]), *to, *given]) == 2
    error = capsys.readouterr().err
    assert sentence.format(**paths) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_only_an_earlier_export_is_replaced(save_run, tmp_path: Path, capsys) -> None:
    save_run(tmp_path / "run")
    target = tmp_path / "out"
    command = ["export", str(tmp_path / "run"), "--to", str(target)]
    assert main([*command, "--replace"]) == 0
    whole = (target / "model.safetensors").read_bytes()
    (target / "model.safetensors").write_bytes(b"torn")
    assert main(command) == 2
    assert main([*command, "--replace"]) == 0
    assert (target / "model.safetensors").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]
    (target / "modeling_mythos.py").unlink()
    assert main([*command, "--replace"]) == 2
    assert "it exists and is not an empty folder" in capsys.readouterr().err
    assert (target / "model.safetensors").read_bytes() == whole


def test_a_directory_without_a_checkpoint_is_refused(tmp_path: Path, capsys) -> None:
    assert main(["export", str(tmp_path), "--to", str(tmp_path / "out")]) == 2
    assert "no checkpoint that verifies" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["export", "--to", "{out}"], ["sample"]])
def test_another_tokenizer_than_the_runs_is_refused(
    command: list[str], save_run, packed: Path, tmp_path: Path, capsys
) -> None:
    save_run(tmp_path / "run")
    manifest = packed / "manifest.json"
    before = manifest.read_text()
    try:
        manifest.write_text(before + "\n")
        name, *options = (part.format(out=tmp_path / "out") for part in command)
        assert main([name, str(tmp_path / "run"), *options]) == 2
    finally:
        manifest.write_text(before)
    error = capsys.readouterr().err
    assert "packed again since the run was trained" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_loops": 0}, "num_loops: 0 was given; it must be at least 1, and at most 64"),
        ({"num_loops": 65}, "num_loops: 65 was given"),
        ({"exit_rule": "entropy"}, "exit_rule: 'entropy' was given; it is one of quantile"),
        ({"exit_rule": "quantile"}, "exit_rule: quantile reads a halting gate"),
        ({"exit_threshold": 0.1}, "exit_threshold: 0.1 was given without exit_rule"),
        ({"cache_policy": "first"}, "cache_policy: 'first' was given"),
        ({"cache_implementation": "static"}, "cache_implementation: 'static' was given"),
        ({"prompt_lookup_num_tokens": 3}, "assisted generation removes tokens from the cache"),
    ],
)
def test_an_exported_model_refuses_in_one_sentence(options: dict, sentence: str, exported) -> None:
    loaded, prompt = exported()[1], torch.tensor([[1, 2, 3]])
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        loaded.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=2, **options)


def test_a_text_longer_than_the_context_is_refused(exported) -> None:
    _, loaded = exported()
    with pytest.raises(ValueError, match=r"input_ids: 257 tokens .* but the model takes 256"):
        loaded(torch.zeros(1, 257, dtype=torch.long))


def test_a_vocabulary_may_grow_but_missing_weights_are_refused(save_run, load, tmp_path) -> None:
    save_run(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", None)
    loaded, tokens = load(tmp_path / "out"), torch.tensor([[1, 2, 3]])
    before = loaded(tokens).logits
    loaded.resize_token_embeddings(520)
    loaded.save_pretrained(tmp_path / "larger")
    after = load(tmp_path / "larger")(tokens).logits
    assert after.shape == (1, 3, 520)
    assert torch.equal(after[..., :512], before)
    with pytest.raises(ValueError, match="weights are missing"):
        type(loaded)(loaded.config)
