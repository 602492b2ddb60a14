"""Generate, trace, evaluate and train with the public API."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mythos
from mythos.cli.main import main
from mythos.train.build import train as train_in

PROMPT = "the king speaks to his queen"


def test_text_is_reproducible_and_each_token_has_its_loops(loaded: mythos.Loaded) -> None:
    model, tokenizer, _ = loaded
    first, second = (mythos.generate(model, tokenizer, PROMPT, num_tokens=7, seed=1) for _ in range(2))
    assert first == second
    assert len(first.tokens) == 7
    assert first.num_loops == [3] * 7
    assert first.text == tokenizer.decode(first.tokens)
    assert mythos.generate(model, tokenizer, PROMPT, num_tokens=7, seed=2) != first
    exits = mythos.generate(
        model, tokenizer, num_tokens=5, num_loops=6, exit_rule="relative_change", exit_threshold=1e9
    )
    assert exits.num_loops == [2] * 5


def test_the_most_probable_token_is_that_of_the_logits(loaded: mythos.Loaded) -> None:
    model, tokenizer, _ = loaded
    generation = mythos.generate(model, tokenizer, PROMPT, num_tokens=1, num_loops=2, temperature=0)
    logits_BSV = model(torch.tensor([tokenizer.encode(PROMPT).ids]), num_loops=2).logits_BSV
    assert generation.tokens == [int(logits_BSV[0, -1].argmax())]


def test_an_export_writes_text(exported: Path, capsys) -> None:
    model, tokenizer, _ = mythos.load(exported)
    generation = mythos.generate(model, tokenizer, PROMPT, num_tokens=6, num_loops=2)
    assert main(["sample", str(exported), "--prompt", PROMPT, "--num-tokens", "6", "--num-loops", "2"]) == 0
    assert f"{PROMPT}{generation.text}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_tokens": 0}, r"num_tokens: 0 was given; it must be at least 1"),
        ({"temperature": -0.5}, r"temperature: -0.5 was given; it must be finite and at least 0"),
        ({"top_k": 0}, r"top_k: 0 was given; it must be at least 1"),
        ({"top_p": 0.0}, r"top_p: 0.0 was given; it must be above 0 and at most 1"),
        ({"num_loops": 0}, r"num_loops: 0 was given; it must be at least 1"),
        ({"exit_rule": "never"}, r"exit_rule: 'never' was given; it is one of quantile"),
        ({"exit_rule": "quantile"}, r"exit_rule: quantile reads a halting gate"),
        ({"exit_threshold": 0.5}, r"exit_threshold: 0.5 was given without exit_rule"),
        ({"cache_policy": "first"}, r"cache_policy: 'first' was given"),
        ({"num_tokens": 96}, r"prompt: it takes \d+ tokens and num_tokens is 96, together more than the model's 96"),
    ],
)
def test_wrong_options_of_generate_are_one_sentence(options: dict, sentence: str, loaded: mythos.Loaded) -> None:
    with pytest.raises(ValueError, match=sentence):
        mythos.generate(loaded.model, loaded.tokenizer, PROMPT, **options)


def test_a_trace_has_the_probabilities_of_the_logits(loaded: mythos.Loaded) -> None:
    model, tokenizer, _ = loaded
    ids = tokenizer.encode(PROMPT).ids
    trace = mythos.trace(model, tokenizer, PROMPT, layers=[1], heads=[0])
    assert trace.token_S.tolist() == ids
    assert trace.attention_TCHSS.shape == (3, 1, 1, len(ids), len(ids))
    logits_XBSV = model(torch.tensor([ids]), exits=(0, 1, 2)).logits_XBSV
    prob_TS = logits_XBSV[:, 0, :-1].softmax(-1)[:, range(len(ids) - 1), ids[1:]].detach().numpy()
    np.testing.assert_allclose(trace.next_prob_TS[:, :-1], prob_TS, rtol=1e-4)
    assert mythos.trace(model, tokenizer, PROMPT, num_loops=2, layers=[]).attention_TCHSS.size == 0


@pytest.mark.parametrize(
    ("prompt", "options", "sentence"),
    [
        ("", {}, r"prompt: 0 characters were given"),
        ("king", {"num_loops": 0}, r"num_loops: 0 was given"),
        ("king", {"layers": [2]}, r"layers: 2 was given, but the model has 2 core layers; give numbers from 0 to 1"),
        ("king", {"heads": [-1]}, r"heads: -1 was given, but the model has 2 heads"),
        ("king " * 200, {}, r"including the one that opens the document, more than the model's 96"),
    ],
)
def test_wrong_options_of_trace_are_one_sentence(
    prompt: str, options: dict, sentence: str, loaded: mythos.Loaded
) -> None:
    with pytest.raises(ValueError, match=sentence):
        mythos.trace(loaded.model, loaded.tokenizer, prompt, **options)


def test_evaluation_equals_the_last_validation_on_the_same_text(
    trained: mythos.TrainingResult, packed: Path, capsys
) -> None:
    result = mythos.evaluate(trained.path, num_loops=[1, 3], device="cpu")
    assert result.step == 4
    assert result.problems == {}
    text = result.text[str(packed)]
    assert text.num_bytes == 6000
    assert list(text.nats_per_token) == list(text.bits_per_byte) == [1, 3]
    for num_loops, loss in trained.losses.items():  # of the first two batches
        assert text.nats_per_token[num_loops] == pytest.approx(loss, rel=0.05)
    assert main(["evaluate", str(trained.path), "--num-loops", "1", "3"]) == 0
    assert f"{text.nats_per_token[3]:.4f} nats per token" in capsys.readouterr().out
    with pytest.raises(mythos.ConfigError, match=r"num_loops: 0 was given"):
        mythos.evaluate(trained.path, num_loops=[1, 0])


def test_a_run_that_cannot_start_here_is_refused(trained: mythos.TrainingResult, packed: Path) -> None:
    config = mythos.load(trained.path).config
    assert isinstance(config, mythos.RunConfig)
    with pytest.raises(mythos.ConfigError, match=r"run.name: .* already holds a run"):
        mythos.train(config)
    with pytest.raises(mythos.ConfigError, match=r"run.max_restarts is 2, but restarts need a launcher"):
        mythos.train(replace(config, run=replace(config.run, max_restarts=2)))
    two = mythos.load_config(
        "model=debug", "parallel=ddp", "cluster.num_devices=2", "data.batch_size=32", f"data.dir={packed}"
    )
    with pytest.raises(mythos.ConfigError, match=r"but the launcher started 1"):
        mythos.train(two)


def test_the_package_and_the_function_share_a_name(trained: mythos.TrainingResult) -> None:
    """Importing a module of the package replaces the attribute ``mythos.train``, which stays callable."""
    import mythos.train.module

    assert callable(mythos.train)
    assert mythos.train.build.train is train_in


def test_every_public_name_is_there_and_nothing_else() -> None:
    for name in mythos.__all__:
        assert getattr(mythos, name) is not None
    assert set(mythos.__all__) <= set(dir(mythos))
    with pytest.raises(AttributeError, match=r"module 'mythos' has no attribute 'laod'"):
        mythos.laod  # noqa: B018
