"""The tokenizer is part of a run, which is sampled, traced, exported and evaluated once its data have moved."""

import shutil
from pathlib import Path

import pytest

import mythos
from mythos.cli.main import main
from mythos.config.base import ConfigError
from mythos.eval.scoring import load_scorer
from mythos.train.build import train
from mythos.train.run_directory import prepare


@pytest.fixture(scope="module")
def place(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained ``run``, whose data have moved to ``moved``."""
    root = tmp_path_factory.mktemp("place")
    shutil.copytree(packed, root / "data")
    overrides = """model=debug data.seq_len=32 data.batch_size=4 data.micro_batch_size=4 depth.mean=2 run.num_steps=2
    run.validation.every=2 run.validation.num_batches=2 run.checkpoint.every=2 schedule.num_warmup_steps=1
    parallel.device=cpu run.name=run""".split()
    config = mythos.load_config(*overrides, f"data.dir={root / 'data'}", f"run.dir={root}")
    train(config, prepare(config))
    (root / "data").rename(root / "moved")
    return root


def test_the_run_holds_the_tokenizer_of_its_data(place: Path) -> None:
    assert (place / "run" / "tokenizer.json").read_bytes() == (place / "moved" / "tokenizer.json").read_bytes()


def test_text_and_export_need_no_data(place: Path, packed: Path, tmp_path: Path, capsys) -> None:
    run = str(place / "run")
    assert main(["sample", run, "--prompt", "the king", "--num-loops", "1", "--num-tokens", "4"]) == 0
    assert main(["trace", run, "--prompt", "the king", "--num-loops", "2", "--to", str(tmp_path / "trace")]) == 0
    assert main(["export", run, "--to", str(tmp_path / "export")]) == 0
    ids = mythos.load(run).tokenizer.encode("the king").ids
    assert ids == mythos.load(tmp_path / "export").tokenizer.encode("the king").ids
    scorer, *_ = load_scorer(place / "run", 1)
    assert [scorer.separator_id, *scorer.encode("the king")] == ids


@pytest.mark.parametrize("study", [[], ["depth-sweep"]], ids=["held-out", "depth-sweep"])
def test_held_out_data_are_named_by_an_option(place: Path, capsys, study: list[str]) -> None:
    command = ["evaluate", str(place / "run"), *study, "--num-loops", "1"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert (
        error == f"mythos: {place / 'data'}: no such folder; restore the run's data, or name their folder by --data.\n"
    )
    assert main([*command, "--data", str(place / "moved")]) == 0
    assert capsys.readouterr().out


def test_other_data_of_the_same_tokenizer_are_evaluated_and_others_refused(place: Path, tmp_path: Path) -> None:
    from data_pipelines.packing.held_out import HeldOutBytes
    from data_pipelines.packing.pack import PackOptions, pack
    from data_pipelines.tokenizer.train import TokenizerOptions, write_tokenizer

    text, held_out = tmp_path / "text", HeldOutBytes(num_bytes=3000)
    text.mkdir()
    (text / "a.txt").write_text("my lord of old england said peace to his queen.\n" * 300)
    (tmp_path / "same").mkdir()
    shutil.copy(place / "moved" / "tokenizer.json", tmp_path / "same")
    pack(text, tmp_path / "same", PackOptions(held_out=held_out))
    both = [place / "moved", tmp_path / "same"]
    result = mythos.evaluate(place / "run", num_loops=[1], data=both)
    assert [one.num_bytes for one in result.text.values()] == [6000, 3000]
    alone = mythos.evaluate(place / "run", num_loops=[1], data=[place / "moved"])
    assert result.text[str(place / "moved")] == alone.text[str(place / "moved")]

    write_tokenizer(text, tmp_path / "other", TokenizerOptions(vocab_size=280), held_out, overwrite=False)
    pack(text, tmp_path / "other", PackOptions(held_out=held_out))
    with pytest.raises(ConfigError, match=r"^--data: .*other was packed by the tokenizer .* but the run's is "):
        mythos.evaluate(place / "run", data=[tmp_path / "other"])


def test_an_older_run_uses_its_data(place: Path, tmp_path: Path, capsys) -> None:
    """It holds no tokenizer; with its data in their place, or named where they are held out, it works as before."""
    run = tmp_path / "run"
    shutil.copytree(place / "run", run, ignore=shutil.ignore_patterns("tokenizer.json", "data.json"))
    command = ["sample", str(run), "--num-loops", "1", "--num-tokens", "2"]
    assert main(command) == 2
    assert "data: no such folder" in capsys.readouterr().err
    assert list(mythos.evaluate(run, num_loops=[1], data=[place / "moved"]).text) == [str(place / "moved")]
    (place / "data").symlink_to(place / "moved")
    try:
        assert main(command) == 0
    finally:
        (place / "data").unlink()


def test_a_damaged_tokenizer_is_named(place: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    content = (run / "tokenizer.json").read_bytes()
    for damaged in (content.replace(b'"version"', b'"version" ', 1), b""):
        (run / "tokenizer.json").write_bytes(damaged)
        assert main(["sample", str(run)]) == 2
        assert f"{run / 'tokenizer.json'}: missing or altered since the run began" in capsys.readouterr().err
