"""A device that is too small is refused with the change that fits, and that change does fit."""

import re

import pytest

from mythos.account.estimate import cheapest_remat, memory
from mythos.account.fit import check_policy, choose_remat
from mythos.config.base import ConfigError
from mythos.config.load import load

GIB = 2**30
EXPLICIT = ["model=370m", "data.seq_len=2048", "data.batch_size=64", "data.micro_batch_size=16"]
EXPLICIT += ["parallel.precision=bf16", "parallel.compile=true"]


def refusal(check, overrides: list[str], memory_bytes: int) -> str:
    with pytest.raises(ConfigError) as caught:
        check(load(overrides), "NVIDIA L4", memory_bytes, False)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("recipe", ["140m-3b-tokens", "1b-20b-tokens"])
def test_the_micro_batch_that_fits_is_named(recipe: str) -> None:
    words = [f"experiment={recipe}", "data.micro_batch_size=32"]
    least = cheapest_remat(load(words), 0, False)[1].total
    sentence = refusal(choose_remat, words, least - 1)
    assert f"is estimated to need {least / GIB:.1f} GiB, more than the {(least - 1) / GIB:.1f} GiB" in sentence
    changes = re.findall(r"[a-z_.]+=\w+", sentence.partition("; set ")[2])
    assert changes == ["data.micro_batch_size=8"], "the largest that recomputes nothing"
    chosen, _ = choose_remat(load([*words, *changes]), "NVIDIA L4", least - 1, False)
    assert chosen.parallel.remat == "none"
    assert memory(chosen, False).total < least


def test_an_explicit_policy_is_refused_where_its_tensors_alone_do_not_fit() -> None:
    run = load(EXPLICIT)
    needed = memory(run, False).allocated
    check_policy(run, "NVIDIA L4", needed, False)
    sentence = refusal(check_policy, EXPLICIT, needed - 1)
    assert sentence.startswith(
        f"parallel.remat: with none the tensors alone are estimated to need {needed / GIB:.1f} GiB"
    )
    changes = re.findall(r"[a-z_.]+=\w+", sentence.partition("; set ")[2])
    assert changes == ["data.micro_batch_size=8"], "recomputing nothing is the fastest"
    assert memory(load([*EXPLICIT, *changes]), False).total < needed


def test_where_nothing_fits_the_recipe_that_does_is_named() -> None:
    sentence = refusal(check_policy, ["model=3b"], 20 * GIB)
    assert "more than the 20.0 GiB of NVIDIA L4; lower depth.num_grad_loops" in sentence
    assert sentence.endswith("or train a recipe that fits, experiment=140m-3b-tokens.")
    assert refusal(check_policy, ["model=3b"], GIB).endswith("(mythos plan --search lists layouts that fit).")
