import pytest
import torch
from helpers import MODELS, fill, model_config, run_config

import mythos
from mythos.api.model import LanguageModel
from mythos.config.halting import ActHalting, PonderHalting
from mythos.model.mythos import Mythos
from mythos.types import IGNORED, one_document


def language_model(name: str = "debug", **changes) -> LanguageModel:
    """A random model whose default is three loops."""
    model = LanguageModel(Mythos(model_config(name, **changes)), num_loops=3).eval()
    fill(model.model)
    return model


def tokens(batch: int = 2, length: int = 11, seed: int = 0) -> torch.Tensor:
    return torch.randint(512, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_decoding_at_every_depth(name: str) -> None:
    model, tokens_BS = language_model(name), tokens()
    for num_loops in (1, 3):
        logits_BSV = model(tokens_BS, num_loops=num_loops).logits_BSV
        assert logits_BSV.shape == (2, 11, 512)
        assert logits_BSV.dtype == torch.float32
        decoded_BSV = model.model.decode(tokens_BS, model.model.new_cache(num_loops, 11))
        torch.testing.assert_close(logits_BSV, decoded_BSV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("halting", [None, ActHalting(), PonderHalting()], ids=["fixed", "act", "ponder"])
def test_exits_and_losses_equal_those_of_the_training_forward(halting) -> None:
    model = LanguageModel(Mythos(model_config(), halting), num_loops=4)
    fill(model.model)
    tokens_BS = tokens()
    batch = one_document(tokens_BS)
    prediction = model(tokens_BS, targets_BS=batch.targets_BS, exits=(0, 2, 3))
    expected = model.model(batch, 4, exits=(0, 2, 3))
    assert prediction.logits_XBSV.shape == (3, 2, 11, 512)
    assert torch.equal(prediction.logits_BSV, prediction.logits_XBSV[-1])
    loss_X = expected.nll_XBS.sum((1, 2)) / (batch.targets_BS != IGNORED).sum()
    torch.testing.assert_close(prediction.loss_X, loss_X, rtol=1e-5, atol=1e-5)
    assert prediction.loss == prediction.loss_X[-1]


def test_the_gradient_of_the_loss_equals_that_of_the_training_forward() -> None:
    model, tokens_BS = language_model(), tokens()
    batch = one_document(tokens_BS)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(model(tokens_BS, targets_BS=batch.targets_BS).loss, parameters)
    mean = model.model(batch, 3).nll_XBS.sum() / (batch.targets_BS != IGNORED).sum()
    theirs = torch.autograd.grad(mean, parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_calls_have_no_noise_and_no_exits_or_loss_unless_requested() -> None:
    model = mythos.build_model(run_config("depth.mean=5"))
    assert model.config.initial_state == "noise"
    assert not model.training
    first, second = model(tokens()), model(tokens(), num_loops=5)
    assert torch.equal(first.logits_BSV, second.logits_BSV)
    assert first.logits_XBSV.shape[0] == 1
    assert (first.loss, first.loss_X) == (None, None)


def test_initial_values_depend_on_the_seed_alone() -> None:
    config = run_config("run.seed=3")
    models = [mythos.build_model(config), mythos.build_model(config.model, seed=3), mythos.build_model(config, seed=4)]
    weights = [model.state_dict() for model in models]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(*(one["model.embedding.weight"] for one in weights[1:]))
    assert models[0].num_loops == 8
    assert models[1].num_loops is None
    assert models[1](tokens(), num_loops=2).logits_BSV.shape == (2, 11, 512)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"tokens_BS": torch.zeros(7, dtype=torch.long)},
            r"tokens_BS: the shape is \[7\], but it must be \[sequences",
        ),
        ({"tokens_BS": torch.zeros(2, 0, dtype=torch.long)}, r"tokens_BS: the shape is \[2, 0\], but it must be"),
        ({"tokens_BS": torch.zeros(2, 3)}, r"tokens_BS: the dtype is torch.float32, but token ids are integers"),
        ({"tokens_BS": torch.full((1, 3), 512)}, r"tokens_BS: the id 512 was given, but ids range from 0 to 511"),
        ({"tokens_BS": torch.full((1, 3), -1)}, r"tokens_BS: the id -1 was given, but ids range from 0 to 511"),
        ({"tokens_BS": tokens(1, 257)}, r"tokens_BS: 257 tokens were given, but the model takes 256"),
        ({"num_loops": 0}, r"num_loops: 0 was given; it must be at least 1, and at most 64"),
        ({"num_loops": 65}, r"num_loops: 65 was given"),
        ({"exits": (3,)}, r"exits: 3 was given, but 3 loops have the exits 0 to 2"),
        ({"exits": (-1, 2)}, r"exits: -1 was given, but 3 loops have the exits 0 to 2"),
        ({"exits": (2, 0)}, r"exits: \[2, 0\] was given; name at least one loop, in ascending order"),
        ({"exits": ()}, r"exits: \[\] was given"),
        ({"targets_BS": tokens(2, 10)}, r"targets_BS: the shape is \[2, 10\], but that of tokens_BS is \[2, 11\]"),
        ({"targets_BS": torch.full((2, 11), -2)}, r"targets_BS: the id -2 was given, but ids range from -1 to 511"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        language_model()(**{"tokens_BS": tokens()} | arguments)
    assert str(error.value).count("\n") == 0


def test_a_model_without_a_training_configuration_needs_num_loops() -> None:
    with pytest.raises(ValueError, match=r"num_loops: none was given"):
        mythos.build_model(model_config())(tokens())
