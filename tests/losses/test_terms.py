"""The table of penalties, and the penalties of other packages."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers import model_config, random_batch, random_model, run_config

from mythos.config.base import ConfigError
from mythos.config.objective import ObjectiveConfig
from mythos.loop.exits.draw import Exits
from mythos.loop.plan import StepPlan
from mythos.loop.policy import Depth
from mythos.losses.objective import objective
from mythos.losses.terms import TERMS, load_terms

SOURCE = """
def state_square(weight, inputs):
    return weight * inputs.output.state_BSD.square().mean()

def absent(weight, inputs):
    return None

text = "no function"
"""
PLAN = StepPlan(Depth(2, 2), Exits((1,), (1.0,)), 0.0)


@pytest.fixture
def _installed(install: Callable[..., None]) -> None:
    terms = [f"{name} = foreign_terms:{name}" for name in ("state_square", "absent", "text")]
    install("foreign_terms", "1.2", SOURCE, loss_terms=[*terms, "z = foreign_terms:state_square"])


def test_the_loss_adds_the_terms_in_the_order_of_the_table() -> None:
    assert list(TERMS) == [
        "z",
        "supervise_loops",
        "router_z",
        "balance",
        "consistency",
        "jacobian",
        "ponder",
        "halting",
    ]
    weights = ObjectiveConfig(z_loss=0.1, supervise_loops=0.2, router_z_loss=0.3, balance_loss=0.4)
    config = replace(run_config(), objective=weights)
    model = random_model(model_config("debug"))
    batch = random_batch(model.config)
    loss = objective(config, model(batch, 2), batch, PLAN)
    assert list(loss.terms) == ["z", "supervise_loops", "router_z", "balance"]
    assert (
        loss.total
        == loss.nll + loss.terms["z"] + loss.terms["supervise_loops"] + loss.terms["router_z"] + (loss.terms["balance"])
    )


@pytest.mark.usefixtures("_installed")
def test_a_foreign_term_has_a_weight_of_its_own_and_comes_after_the_others() -> None:
    config = run_config("objective.terms={state_square: 0.25, absent: 0.5}")
    terms = load_terms(config)
    assert list(terms) == [*TERMS, "state_square", "absent"]
    model = random_model(model_config("debug"))
    batch = random_batch(model.config)
    output = model(batch, 2)
    plain, loss = objective(config, output, batch, PLAN), objective(config, output, batch, PLAN, terms)
    assert list(loss.terms) == [*plain.terms, "state_square"]
    expected = 0.25 * output.state_BSD.square().mean()
    assert torch.equal(loss.terms["state_square"], expected)
    assert torch.equal(loss.total, plain.total + expected)
    (gradient,) = torch.autograd.grad(loss.terms["state_square"], model.embedding.weight)
    assert gradient.abs().sum() > 0


@pytest.mark.usefixtures("_installed")
def test_a_foreign_term_of_weight_zero_is_left_out() -> None:
    config = run_config("objective.terms.state_square=0")
    model = random_model(model_config("debug"))
    batch = random_batch(model.config)
    assert "state_square" not in objective(config, model(batch, 2), batch, PLAN, load_terms(config)).terms


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("z", "objective.terms.z: 'z' is a term of mythos itself; give the entry point another name."),
        ("text", "objective.terms.text: foreign_terms:text of foreign_terms 1.2 lacks __call__; it needs __call__."),
        ("curl", "objective.terms.curl: 'curl' was given, but no installed package declares it under the entry points "
                 "'mythos.loss_terms'; known here: absent, state_square, text, z."),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_terms(run_config(f"objective.terms.{name}=1"))
    assert str(error.value) == sentence
