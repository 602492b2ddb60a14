import pytest
import torch
from torch import Tensor

from mythos.config.decoding import EXIT_KINDS, ExitRule, exit_rule
from mythos.loop import exits
from mythos.loop.exit_rules import Seen, stops
from mythos.loop.halting import stick_breaking

NUM_LOOPS = 9


def exits_after(rule: ExitRule, state_TND: Tensor, logits_TNV: Tensor, p_TN: Tensor) -> Tensor:
    """The pass after which each token leaves when the rule is asked pass by pass, and never after the last."""
    has_stops, last_N = stops(rule), torch.full(state_TND.shape[1:2], NUM_LOOPS - 1)
    for loop in range(NUM_LOOPS - 1):
        mass_BN, logits_BNV = p_TN[: loop + 1].sum(0)[None], logits_TNV[loop][None]
        seen = Seen(state_TND[loop][None], lambda mass=mass_BN: mass, lambda logits=logits_BNV: logits)
        last_N = torch.where(has_stops(seen)[0] & (last_N == NUM_LOOPS - 1), loop, last_N)
    return last_N


@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.9])
def test_rules_asked_pass_by_pass_leave_where_the_rules_over_all_passes_do(threshold: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rate_1N1 = torch.rand(1, 200, 1, generator=generator)
    steps_TND = torch.randn(NUM_LOOPS, 200, 5, generator=generator) * rate_1N1 ** torch.arange(NUM_LOOPS).view(-1, 1, 1)
    state_TND = steps_TND.cumsum(0)
    logits_TNV = state_TND @ torch.randn(5, 7, generator=generator)
    p_TN = stick_breaking(torch.randn(NUM_LOOPS, 200, 1, generator=generator))[..., 0]
    expected = {
        "quantile": exits.by_quantile(p_TN, threshold),
        "output_divergence": exits.by_output_divergence(logits_TNV.log_softmax(-1), threshold),
        "relative_change": exits.by_relative_change(state_TND, threshold),
        "relative_acceleration": exits.by_relative_acceleration(state_TND, threshold),
        "stable_argmax": exits.by_stable_argmax(logits_TNV.argmax(-1), round(5 * threshold)),
    }
    for kind in EXIT_KINDS:
        rule = ExitRule(kind, round(5 * threshold) if kind == "stable_argmax" else threshold)
        found = exits_after(rule, state_TND, logits_TNV, p_TN)
        assert torch.equal(found, expected[kind]), kind
        assert found.unique().numel() > 1 or rule == ExitRule("stable_argmax", 1)


@pytest.mark.parametrize(
    ("kind", "threshold", "message"),
    [
        ("entropy", None, "'entropy' was given"),
        ("quantile", 1.5, "at most 1"),
        ("relative_change", 0.0, "above 0"),
        ("stable_argmax", 2.5, "whole passes"),
        (None, 0.5, "without exit_rule"),
    ],
)
def test_rules_that_cannot_be_are_refused(kind: str | None, threshold: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exit_rule(kind, threshold)
