"""Settings that a T per sequence and damping exclude."""

import pytest

from mythos.config.base import ConfigError
from mythos.config.load import load


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["halting=act", "depth.num_grad_loops=32"],
            "depth.per_sequence is true but halting.kind is act, which weighs the same loops for all sequences; "
            "set halting=fixed or depth.per_sequence=false.",
        ),
        (
            ["objective.supervise_loops=0.3"],
            "depth.per_sequence is true but objective.supervise_loops is 0.3, which reads the same loops of all "
            "sequences; set the weight to 0 or depth.per_sequence=false.",
        ),
        (
            ["parallel.compile=true", "parallel.precision=bf16"],
            "depth.per_sequence is true but parallel.compile is true, which serves one number of rows where each loop "
            "has its own; set parallel.compile=false or depth.per_sequence=false.",
        ),
        (
            ["balance=quantile"],
            "depth.per_sequence is true but balance.kind is quantile, which counts margins of one loop at a time; set "
            "balance=sign or depth.per_sequence=false.",
        ),
    ],
)
def test_a_T_per_sequence_is_refused_with_what_excludes_it(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(["model=debug", "depth=poisson", "depth.per_sequence=true", "balance=sign", *overrides])
    assert str(caught.value) == sentence


@pytest.mark.parametrize("overrides", [["depth=fixed"], ["depth=uniform", "depth.num_grad_loops=16"]])
def test_damping_needs_a_loop_that_keeps_no_gradient(overrides: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(["model=debug", *overrides, "depth.damping=0.5"])
    num_loops = 8 if overrides == ["depth=fixed"] else 16
    assert str(caught.value) == (
        f"depth: damping is 0.5 but all of up to {num_loops} loops keep gradients, so that no loop runs the map that "
        "evaluation runs; lower num_grad_loops or set damping=1."
    )


@pytest.mark.parametrize(("value", "bound"), [("0.0", "greater than 0"), ("1.5", "less than or equal to 1")])
def test_damping_is_a_share(value: str, bound: str) -> None:
    with pytest.raises(ConfigError, match=rf"^depth\.damping: input should be {bound}, but {value} was given\.$"):
        load(["model=debug", f"depth.damping={value}"])
