"""The parts of other packages that a run names are checked early, and no others are imported."""

import sys
from collections.abc import Callable

import pytest
from helpers import run_config

from mythos.config import foreign
from mythos.config.base import ConfigError, decode, encode
from mythos.config.run import RunConfig

Install = Callable[..., None]
OPTIM = ("optim=foreign", "optim.name=lion", "optim.options={betas: [0.9, 0.99]}")
TRACKING = ("tracking=foreign", "tracking.name=aim", "tracking.options={repository: runs}")


def test_the_named_parts_are_listed_with_their_paths_and_survive_a_checkpoint() -> None:
    raw = encode(run_config(*OPTIM, *TRACKING, "objective.terms={curl: 0.1, drift: 0.0}"))
    raw["model"]["loop"]["parts"] = [{"kind": "foreign", "name": "wave"}]  # composing would look for its package
    config = decode(RunConfig, raw)
    assert [entry[:3] for entry in foreign.chosen(config)] == [
        ("mythos.loop_parts", "wave", "model.loop.parts.0.name"),
        ("mythos.loss_terms", "curl", "objective.terms.curl"),
        ("mythos.loss_terms", "drift", "objective.terms.drift"),
        ("mythos.optimizers", "lion", "optim.name"),
        ("mythos.trackers", "aim", "tracking.name"),
    ]
    assert config.objective.terms == {"curl": 0.1, "drift": 0.0}
    assert config.optim.options == {"betas": [0.9, 0.99]}
    assert decode(RunConfig, encode(config)) == config
    assert foreign.chosen(run_config()) == []


def test_only_what_is_named_is_imported(install: Install) -> None:
    install("foreign_a", "1.2", "def curl(weight, inputs): return None", loss_terms=["curl = foreign_a:curl"])
    install("foreign_b", "0.3", "raise RuntimeError('imported')", loss_terms=["tide = foreign_b:tide"])
    config = run_config("objective.terms.curl=0.1")
    foreign.check(config)
    assert not {"foreign_a", "foreign_b"} & sys.modules.keys()
    foreign.load(config)
    assert {"foreign_a", "foreign_b"} & sys.modules.keys() == {"foreign_a"}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("objective.terms.curk=0.1",),
            "objective.terms.curk: 'curk' was given, but no installed package declares it under the entry points "
            "'mythos.loss_terms'; did you mean 'curl'?",
        ),
        (
            OPTIM,
            "optim.name: 'lion' was given, but no installed package declares it under the entry points "
            "'mythos.optimizers'; known here: nothing.",
        ),
        (
            ("model.loop.parts=[{kind: foreign, name: wave}]",),
            "model.loop.parts.0.name: 'wave' was given, but no installed package declares it under the entry points "
            "'mythos.loop_parts'; known here: nothing.",
        ),
        (
            TRACKING,
            "tracking.name: 'aim' was given, but no installed package declares it under the entry points "
            "'mythos.trackers'; known here: nothing.",
        ),
    ],
)
def test_an_unknown_name_is_one_sentence(install: Install, overrides: tuple[str, ...], sentence: str) -> None:
    install("foreign_a", "1.2", "", loss_terms=["curl = foreign_a:curl"])
    with pytest.raises(ConfigError) as error:
        foreign.check(run_config(*overrides))
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("objective.terms.curl=-1",), "objective.terms.curl: input should be greater than or equal to 0"),
        (("optim=foreign",), "optim.name: a value is needed and none was given."),
        (("tracking=foreign",), "tracking.name: a value is needed and none was given."),
        (("tracking=foreign", "tracking.name=a/b"), "tracking.name: string should match pattern"),
        (
            (*OPTIM, "parallel=zero1"),
            "optim.kind is foreign but parallel.zero_stage is 1, which hands the optimiser flat pieces of parameters; "
            "set optim=adamw or parallel.zero_stage=0.",
        ),
    ],
)
def test_mistakes_are_refused(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_config(*overrides)
    assert str(error.value).startswith(sentence)
