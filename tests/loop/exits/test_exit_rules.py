import pytest
import torch
from torch import Tensor

from mythos.config.decoding import EXIT_KINDS, ExitRule, exit_rule
from mythos.loop.exits.distribution import stick_breaking
from mythos.loop.exits.rules import (
    Seen,
    by_output_divergence,
    by_quantile,
    by_relative_acceleration,
    by_relative_change,
    by_stable_argmax,
    stops,
)

NUM_LOOPS = 9


def exits_after(rule: ExitRule, state_TND: Tensor, logits_TNV: Tensor, p_TN: Tensor) -> Tensor:
    """The loop after which each token exits when the rule is applied loop by loop, and not after the last."""
    has_stops, last_N = stops(rule), torch.full(state_TND.shape[1:2], NUM_LOOPS - 1)
    for loop in range(NUM_LOOPS - 1):
        mass_BN, logits_BNV = p_TN[: loop + 1].sum(0)[None], logits_TNV[loop][None]
        seen = Seen(state_TND[loop][None], lambda mass=mass_BN: mass, lambda logits=logits_BNV: logits)
        last_N = torch.where(has_stops(seen)[0] & (last_N == NUM_LOOPS - 1), loop, last_N)
    return last_N


def test_rules_exit_where_their_condition_first_holds() -> None:
    p = torch.tensor([[0.1, 0.6], [0.5, 0.2], [0.4, 0.2]])
    assert by_quantile(p, 0.5).tolist() == [1, 0]
    assert by_quantile(p, 0.99).tolist() == [2, 2]

    state = torch.tensor([[1.0, 0.0], [2.0, 0.0], [2.01, 0.0], [2.01, 0.0]])[:, None, :]
    assert by_relative_change(state, 0.01).tolist() == [2]
    assert by_relative_change(state, 1e-9).tolist() == [3]
    assert by_relative_change(state[:2], 1e-9).tolist() == [1]
    line = torch.tensor([[1.0], [2.0], [3.0], [9.0]])[:, None, :]
    assert by_relative_acceleration(line, 1e-6).tolist() == [2]

    log_prob = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.501, 0.499]]).log()[:, None, :]
    assert by_output_divergence(log_prob, 5e-4).tolist() == [2]
    assert by_output_divergence(log_prob, 1.0).tolist() == [1]

    prediction = torch.tensor([[3, 1], [3, 2], [4, 2], [4, 2]])
    assert by_stable_argmax(prediction, 2).tolist() == [1, 2]
    assert by_stable_argmax(prediction, 3).tolist() == [3, 3]


@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.9])
def test_rules_loop_by_loop_exit_where_the_rules_over_all_loops_do(threshold: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rate_1N1 = torch.rand(1, 200, 1, generator=generator)
    steps_TND = torch.randn(NUM_LOOPS, 200, 5, generator=generator) * rate_1N1 ** torch.arange(NUM_LOOPS).view(-1, 1, 1)
    state_TND = steps_TND.cumsum(0)
    logits_TNV = state_TND @ torch.randn(5, 7, generator=generator)
    p_TN = stick_breaking(torch.randn(NUM_LOOPS, 200, 1, generator=generator))[..., 0]
    expected = {
        "quantile": by_quantile(p_TN, threshold),
        "output_divergence": by_output_divergence(logits_TNV.log_softmax(-1), threshold),
        "relative_change": by_relative_change(state_TND, threshold),
        "relative_acceleration": by_relative_acceleration(state_TND, threshold),
        "stable_argmax": by_stable_argmax(logits_TNV.argmax(-1), round(5 * threshold)),
    }
    for kind in EXIT_KINDS:
        rule = ExitRule(kind, round(5 * threshold) if kind == "stable_argmax" else threshold)
        result = exits_after(rule, state_TND, logits_TNV, p_TN)
        assert torch.equal(result, expected[kind]), kind
        assert result.unique().numel() > 1 or rule == ExitRule("stable_argmax", 1)


@pytest.mark.parametrize(
    ("kind", "threshold", "message"),
    [
        ("entropy", None, "'entropy' was given"),
        ("quantile", 1.5, "at most 1"),
        ("relative_change", 0.0, "above 0"),
        ("stable_argmax", 2.5, "whole loops"),
        (None, 0.5, "without exit_rule"),
    ],
)
def test_invalid_rules_are_refused(kind: str | None, threshold: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exit_rule(kind, threshold)
