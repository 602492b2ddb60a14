from dataclasses import replace

import pytest
import torch
from helpers import fill, model_config, random_batch
from torch import Tensor

from mythos.config.base import ConfigError
from mythos.config.decoding import ExitRule
from mythos.config.halting import ActHalting, HaltingConfig, PonderHalting
from mythos.eval.exit_rule import THRESHOLDS, check_rule, chosen_rule, exit_loops, rules_for
from mythos.eval.token_metrics import last_loop_scores, token_metrics
from mythos.loop.exits import rules
from mythos.model.mythos import Mythos
from mythos.types import IGNORED

LOOPS = 5
HALTINGS = [None, ActHalting(), PonderHalting()]


def build(halting: HaltingConfig | None, chunk_tokens: int = 7) -> Mythos:
    config = model_config("debug", vocab_size=64)
    model = Mythos(replace(config, head=replace(config.head, chunk_tokens=chunk_tokens)), halting)
    fill(model)
    return model.eval()


@pytest.mark.parametrize("halting", HALTINGS, ids=["fixed", "act", "ponder"])
def test_metrics_of_every_loop_equal_those_of_a_forward_that_ends_there(halting: HaltingConfig | None) -> None:
    model = build(halting)
    batch = random_batch(model.config, num_documents=2)
    batch.targets_BS[1, 4:9] = IGNORED
    keep_BS = batch.targets_BS != IGNORED
    metrics = token_metrics(model, batch, LOOPS)
    for num_loops in range(1, LOOPS + 1):
        with torch.no_grad():
            expected_N = model(batch, num_loops).nll_XBS[-1][keep_BS]
        torch.testing.assert_close(metrics.nll_TN[num_loops - 1], expected_N, rtol=1e-5, atol=1e-5)
        last = last_loop_scores(model, batch, num_loops)
        torch.testing.assert_close(last.nll_N, expected_N, rtol=1e-5, atol=1e-5)
        assert torch.equal(last.is_correct_N, metrics.prediction_TN[num_loops - 1] == metrics.target_N)
    assert torch.equal(metrics.prediction_TN, model.predict(batch, LOOPS)[0][:, keep_BS])
    assert metrics.target_N.tolist() == batch.targets_BS[keep_BS].tolist()


def outputs(model: Mythos, tokens_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities after every loop, by decoding with that many loops, and the states, captured by a hook."""
    captured: list[Tensor] = []
    handle = model.core.blocks[-1].register_forward_hook(lambda _module, _inputs, output: captured.append(output[0]))
    log_probs = [
        model.decode(tokens_BS, model.new_cache(num_loops, tokens_BS.shape[1])).log_softmax(-1)
        for num_loops in range(1, LOOPS + 1)
    ]
    handle.remove()
    return torch.stack(log_probs).flatten(1, 2), torch.stack(captured[-LOOPS:]).flatten(1, 2)


def test_exit_loops_equal_those_of_the_functions_in_loop_exits() -> None:
    model = build(PonderHalting())
    batch = random_batch(model.config)
    metrics = token_metrics(model, batch, LOOPS)
    log_prob_TNV, state_TND = outputs(model, batch.tokens_BS)
    assert metrics.halting_TN is not None
    halting_TN = model.predict(batch, LOOPS)[1].flatten(1, 2)
    observed = set()
    for kind, thresholds in THRESHOLDS.items():
        for threshold in thresholds:
            expected_N = {
                "quantile": lambda x: rules.by_quantile(halting_TN, x),
                "output_divergence": lambda x: rules.by_output_divergence(log_prob_TNV, x),
                "relative_change": lambda x: rules.by_relative_change(state_TND, x),
                "relative_acceleration": lambda x: rules.by_relative_acceleration(state_TND, x),
                "stable_argmax": lambda x: rules.by_stable_argmax(log_prob_TNV.argmax(-1), int(x)),
            }[kind](threshold)
            exit_loop_N = exit_loops(ExitRule(kind, threshold), metrics)
            assert exit_loop_N.tolist() == expected_N.tolist()
            observed |= {(kind, loop) for loop in exit_loop_N.tolist()}
            scores = metrics.at(exit_loop_N)
            assert scores.num_loops_N.tolist() == [loop + 1 for loop in expected_N.tolist()]
            expected_nll = [float(metrics.nll_TN[loop, index]) for index, loop in enumerate(exit_loop_N.tolist())]
            assert scores.nll_N.tolist() == pytest.approx(expected_nll)
    assert all(len({loop for rule, loop in observed if rule == kind}) > 1 for kind in THRESHOLDS)


@pytest.mark.parametrize(
    ("kind", "threshold", "sentence"),
    [
        ("relative_chang", None, "'relative_chang' was given; it is one of quantile, output_divergence"),
        ("quantile", 1.5, "exit_threshold: 1.5 was given; a quantile is at most 1"),
        ("relative_change", 0.0, "exit_threshold: 0.0 was given"),
        ("stable_argmax", 2.5, "stable_argmax counts whole loops"),
        (None, 0.5, "0.5 was given without exit_rule"),
    ],
)
def test_an_invalid_rule_is_refused_in_one_sentence(kind: str | None, threshold: float | None, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        chosen_rule(kind, threshold)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_quantile_needs_a_learned_halting() -> None:
    with pytest.raises(ConfigError, match="this model was trained with halting fixed"):
        check_rule(ExitRule("quantile", 0.5), "fixed")
    check_rule(ExitRule("quantile", 0.5), "ponder")
    assert "quantile" not in {rule.kind for rule in rules_for("fixed")}
    assert len(rules_for("act")) == sum(map(len, THRESHOLDS.values()))
    assert chosen_rule(None, None) is None
    assert chosen_rule("output_divergence", None) == ExitRule("output_divergence", 5e-4)
