import json
import os
from pathlib import Path

import pytest

from mythos.checkpoint.manifest import manifest_text
from mythos.config.base import ConfigError
from mythos.train.build import train
from mythos.train.run_directory import prepare

STEP_8 = Path("checkpoints") / "step-00000008"


def run_of(config) -> Path:
    return Path(config.run.dir) / config.run.name


@pytest.fixture
def trained(configure):
    """A finished run of eight steps, saved at four and eight."""
    config = configure()
    train(config, prepare(config))
    return run_of(config)


def test_the_vocabulary_must_match_the_tokenizer(configure) -> None:
    for size, sentence in (
        (511, "model.vocab_size is 511 but the tokenizer of "),
        (640, "has 512 tokens; set model.vocab_size=512"),
    ):
        config = configure(f"model.vocab_size={size}")
        with pytest.raises(ConfigError, match=sentence):
            prepare(config)
        assert not run_of(config).exists()
    prepare(configure("model.vocab_size=639"))


def test_missing_data_names_the_directory_and_the_command(configure, tmp_path: Path) -> None:
    config = configure(f"data.dir={tmp_path / 'nothing'}")
    with pytest.raises(ConfigError, match=r"nothing.*mythos-data pack"):
        prepare(config)


def test_a_second_run_does_not_overwrite_the_first(configure, trained: Path) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"already holds a run; resume it with resume=auto"):
        prepare(configure())
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_a_start_that_failed_before_its_first_step_can_be_repeated(configure) -> None:
    config = configure()
    prepare(config)
    (run_of(config) / "metrics.jsonl").write_text('{"schema": 1}\n')
    assert prepare(config).checkpoint is None


def test_resume_refuses_another_model_and_prints_the_difference(configure, trained: Path) -> None:
    config = configure("resume=auto", "model.dim=64", "run.seed=3", "optim.lr=0.5")
    before = (trained / "config.json").read_bytes()
    with pytest.raises(ConfigError) as error:
        prepare(config)
    text = str(error.value)
    assert "model.dim: 32 -> 64" in text
    assert "run.seed: 0 -> 3" in text
    assert "optim.lr" not in text
    assert (trained / "config.json").read_bytes() == before


def test_resume_prints_allowed_changes(configure, trained: Path, capsys) -> None:
    directory = prepare(configure("resume=auto", "run.num_steps=10"))
    assert directory.checkpoint == trained / STEP_8
    assert "run.num_steps: 8 -> 10" in capsys.readouterr().err


def test_resume_refuses_other_data(configure, trained: Path) -> None:
    manifest = trained / STEP_8 / "manifest.json"
    raw = json.loads(manifest.read_text())
    manifest.write_text(manifest_text(raw | {"data_fingerprint": "0" * 16}))
    with pytest.raises(ConfigError, match="data set: 0000000000000000 -> "):
        prepare(configure("resume=auto"))


def test_resume_beyond_the_last_step_is_refused(configure, trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.num_steps is 5 .* already trained 8 steps"):
        prepare(configure("resume=auto", "run.num_steps=5"))


def test_a_damaged_checkpoint_is_skipped_with_a_warning(configure, trained: Path, capsys) -> None:
    state = trained / STEP_8 / "shard-00000-of-00001.safetensors"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    directory = prepare(configure("resume=auto"))
    assert directory.manifest.step == 4
    assert "safetensors was altered" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"safetensors was altered"):
        prepare(configure(f"resume={trained / STEP_8}"))


def test_an_earlier_checkpoint_is_refused_unless_the_run_branches_off(configure, trained: Path) -> None:
    earlier = trained / "checkpoints" / "step-00000004"
    with pytest.raises(ConfigError, match=r"step-00000004 is followed by step-00000008 in the same run"):
        prepare(configure(f"resume={earlier}"))
    assert prepare(configure(f"resume={earlier}", "run.name=branch")).manifest.step == 4


def test_initial_weights_come_from_a_run_of_the_same_model(configure, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.init_from: .*nowhere holds no checkpoint that verifies"):
        prepare(configure(f"run.init_from={tmp_path / 'nowhere'}", "run.name=new"))
    with pytest.raises(ConfigError, match=r"trained another model:\n  model.dim: 32 -> 64"):
        prepare(configure(f"run.init_from={trained}", "run.name=new", "model.dim=64"))
    assert prepare(configure(f"run.init_from={trained}", "run.name=new")).checkpoint is None


def test_auto_without_a_checkpoint_starts_from_the_beginning(configure) -> None:
    assert prepare(configure("resume=auto")).checkpoint is None


def test_resume_from_a_missing_checkpoint_is_refused(configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint here"):
        prepare(configure(f"resume={tmp_path / 'nowhere'}"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_directory_is_named(configure, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"run.dir: .* choose another run.dir"):
        prepare(configure())


def test_a_file_in_the_way_is_named(configure, tmp_path: Path) -> None:
    (tmp_path / "test").write_text("")
    with pytest.raises(ConfigError, match=r"run.dir: .* cannot be created"):
        prepare(configure())
