import json
import shutil
from pathlib import Path

import pytest
import torch

import mythos
from mythos.config.model import ModelConfig
from mythos.config.parts import parts_of
from mythos.config.run import RunConfig
from mythos.export.part_classes import fp32_modules

PROMPT = "the king speaks to his queen"


def test_training_returns_the_run_and_its_losses(trained: mythos.TrainingResult) -> None:
    assert trained.path.name == "short"
    assert list(trained.losses) == [1, 3]
    assert all(4 < loss < 6.3 for loss in trained.losses.values())


def test_a_run_gives_its_model_tokenizer_and_configuration(
    trained: mythos.TrainingResult, loaded: mythos.Loaded
) -> None:
    model, tokenizer, config = loaded
    assert isinstance(config, RunConfig)
    assert (model.num_loops, model.training, model.config) == (3, False, config.model)
    ids = tokenizer.encode(PROMPT).ids
    assert ids[0] == tokenizer.token_to_id("<|endoftext|>")
    assert tokenizer.decode(ids) == PROMPT
    assert torch.equal(model(torch.tensor([ids])).logits_BSV, model(torch.tensor([ids]), num_loops=3).logits_BSV)


def test_an_export_gives_the_same_interface(loaded: mythos.Loaded, exported: Path) -> None:
    model, tokenizer, config = mythos.load(exported, device="cpu")
    assert isinstance(config, ModelConfig)
    assert (model.num_loops, model.training, model.config) == (3, False, loaded.model.config)
    ids = tokenizer.encode(PROMPT).ids
    assert ids == loaded.tokenizer.encode(PROMPT).ids
    ours, theirs = model.state_dict(), loaded.model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        is_fp32 = any(part in name for part in fp32_modules(parts_of(config)))
        assert torch.equal(ours[name], weight if is_fp32 else weight.bfloat16().float()), name
    first, second = (one(torch.tensor([ids]), num_loops=2).logits_BSV for one in (model, loaded.model))
    torch.testing.assert_close(first, second, rtol=0.05, atol=0.05)


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(mythos.ConfigError, match=r"a folder that is neither run nor export; name a run's"):
            mythos.load(folder)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(mythos.ConfigError, match=r"a folder that is neither run nor export"):
        mythos.load(str(tmp_path))


def test_a_run_without_a_checkpoint_is_refused(trained: mythos.TrainingResult, tmp_path: Path) -> None:
    shutil.copy(trained.path / "config.json", tmp_path)
    with pytest.raises(mythos.ConfigError, match=r"no checkpoint that verifies yet"):
        mythos.load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("architecture", r"config.json is damaged \(no 'architecture'\); export the run again"),
        ("dim", r"config.json is damaged \(architecture.dim: .*'wide' was given\); export the run again"),
        ("other", r"model.safetensors: model.\S+ of shape .* is only in one of the file and the model"),
        ("weights", r"model.safetensors: missing or damaged"),
        ("tokenizer", r"tokenizer.json: no such file"),
    ],
)
def test_a_damaged_export_is_refused_in_one_sentence(
    damage: str, sentence: str, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    config = json.loads((folder / "config.json").read_text())
    match damage:
        case "architecture":
            del config["architecture"]
        case "dim":
            config["architecture"]["dim"] = "wide"
        case "other":
            config["architecture"]["num_coda_layers"] = 2
        case "weights":
            (folder / "model.safetensors").write_bytes(b"short")
        case "tokenizer":
            (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(mythos.ConfigError, match=sentence) as error:
        mythos.load(folder)
    assert str(error.value).count("\n") == 0
