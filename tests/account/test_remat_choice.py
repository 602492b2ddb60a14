"""``remat=auto``: the cheapest recomputation that fits."""

from dataclasses import replace

import pytest

from mythos.account.estimate import POLICIES, cheapest_remat, memory, with_policy
from mythos.account.fit import choose_remat
from mythos.account.plan import plan
from mythos.config.base import ConfigError
from mythos.config.load import load

RUN = load(
    [
        *("model=560m-a210m", "optim=adamw", "data.seq_len=2048", "data.micro_batch_size=8", "data.batch_size=8"),
        *("depth=fixed", "depth.num_loops=16", "parallel.precision=bf16", "parallel.compile=true"),
        "parallel.remat=auto",
    ]
)
NEEDS = {policy: memory(with_policy(RUN, policy), True).total for policy in POLICIES}


def policy_at(memory_bytes: int) -> tuple[str, bool]:
    chosen, _ = cheapest_remat(RUN, memory_bytes, True)
    return chosen.parallel.remat, chosen.parallel.offload_states


def test_the_choice_changes_as_memory_shrinks() -> None:
    needs = [NEEDS[policy] for policy in POLICIES]
    assert needs == sorted(needs, reverse=True), "with 16 loops each policy saves something"
    assert [policy_at(number) for number in needs] == list(POLICIES)
    assert [policy_at(number - 1) for number in needs[:-1]] == list(POLICIES[1:])


def test_the_sentence_states_the_choice_and_the_memory_without_remat() -> None:
    chosen, sentence = choose_remat(RUN, "NVIDIA H200", NEEDS["block", False], True)
    assert chosen == with_policy(RUN, ("block", False))
    needed, most = (f"{NEEDS[policy, False] / 2**30:.1f}" for policy in ("block", "none"))
    assert sentence == (
        f"parallel.remat=auto: block, estimated to need {needed} of {needed} GiB of NVIDIA H200; "
        f"none would need {most} GiB"
    )


def test_a_run_that_cannot_fit_is_refused_with_the_estimate_and_what_to_change() -> None:
    least = min(NEEDS.values())
    with pytest.raises(
        ConfigError, match=rf"even loop with offload_states .* {least / 2**30:.1f} GiB.*H200.*micro_batch"
    ):
        choose_remat(RUN, "H200", least - 1, True)


def test_an_explicit_policy_is_kept() -> None:
    run = with_policy(RUN, ("loop", False))
    assert cheapest_remat(run, 1, True)[0] == run


def test_a_plan_resolves_it_for_the_device() -> None:
    assert plan(RUN, "H200").parallel.remat == "none"
    small = replace(RUN, parallel=replace(RUN.parallel, memory_gb=NEEDS["loop", False] / 1e9 + 1e-3))
    assert plan(small, "H200").parallel.remat == "loop"
