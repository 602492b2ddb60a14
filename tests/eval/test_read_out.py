from dataclasses import replace

import pytest
import torch
from helpers import fill, model_config, random_batch
from torch import Tensor

from mythos.config.base import ConfigError
from mythos.config.decoding import ExitRule
from mythos.config.halting import ActHalting, HaltingConfig, PonderHalting
from mythos.eval.exit_rule import THRESHOLDS, check_rule, chosen_rule, leave, rules_for
from mythos.eval.read_out import read_last, read_out
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
def test_every_pass_is_read_as_a_forward_of_that_depth_reads_its_last(halting: HaltingConfig | None) -> None:
    model = build(halting)
    batch = random_batch(model.config, num_documents=2)
    batch.targets_BS[1, 4:9] = IGNORED
    keep_BS = batch.targets_BS != IGNORED
    read = read_out(model, batch, LOOPS)
    for depth in range(1, LOOPS + 1):
        with torch.no_grad():
            expected_N = model(batch, depth).nll_XBS[-1][keep_BS]
        torch.testing.assert_close(read.nll_TN[depth - 1], expected_N, rtol=1e-5, atol=1e-5)
        last = read_last(model, batch, depth)
        torch.testing.assert_close(last.nll_N, expected_N, rtol=1e-5, atol=1e-5)
        assert torch.equal(last.is_right_N, read.prediction_TN[depth - 1] == read.target_N)
    assert torch.equal(read.prediction_TN, model.predict(batch, LOOPS)[0][:, keep_BS])
    assert read.target_N.tolist() == batch.targets_BS[keep_BS].tolist()


def outputs(model: Mythos, tokens_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities after every pass, by decoding at that depth, and the states, caught on their way."""
    caught: list[Tensor] = []
    handle = model.core.blocks[-1].register_forward_hook(lambda _module, _inputs, output: caught.append(output[0]))
    log_probs = [
        model.decode(tokens_BS, model.new_cache(depth, tokens_BS.shape[1])).log_softmax(-1)
        for depth in range(1, LOOPS + 1)
    ]
    handle.remove()
    return torch.stack(log_probs).flatten(1, 2), torch.stack(caught[-LOOPS:]).flatten(1, 2)


def test_rules_decide_as_the_functions_of_the_loop_do() -> None:
    model = build(PonderHalting())
    batch = random_batch(model.config)
    read = read_out(model, batch, LOOPS)
    log_prob_TNV, state_TND = outputs(model, batch.tokens_BS)
    assert read.halting_TN is not None
    halting_TN = model.predict(batch, LOOPS)[1].flatten(1, 2)
    moved = set()
    for kind, thresholds in THRESHOLDS.items():
        for threshold in thresholds:
            expected_N = {
                "quantile": lambda x: rules.by_quantile(halting_TN, x),
                "output_divergence": lambda x: rules.by_output_divergence(log_prob_TNV, x),
                "relative_change": lambda x: rules.by_relative_change(state_TND, x),
                "relative_acceleration": lambda x: rules.by_relative_acceleration(state_TND, x),
                "stable_argmax": lambda x: rules.by_stable_argmax(log_prob_TNV.argmax(-1), int(x)),
            }[kind](threshold)
            exit_loop_N = leave(ExitRule(kind, threshold), read)
            assert exit_loop_N.tolist() == expected_N.tolist()
            moved |= {(kind, exit_) for exit_ in exit_loop_N.tolist()}
            left = read.at(exit_loop_N)
            assert left.num_loops_N.tolist() == [exit_ + 1 for exit_ in expected_N.tolist()]
            expected_nll = [float(read.nll_TN[exit_, place]) for place, exit_ in enumerate(exit_loop_N.tolist())]
            assert left.nll_N.tolist() == pytest.approx(expected_nll)
    assert all(len({exit_ for found, exit_ in moved if found == kind}) > 1 for kind in THRESHOLDS)


@pytest.mark.parametrize(
    ("kind", "threshold", "sentence"),
    [
        ("relative_chang", None, "'relative_chang' was given; it is one of quantile, output_divergence"),
        ("quantile", 1.5, "exit_threshold: 1.5 was given; a quantile is at most 1"),
        ("relative_change", 0.0, "exit_threshold: 0.0 was given"),
        ("stable_argmax", 2.5, "stable_argmax counts whole passes"),
        (None, 0.5, "0.5 was given without exit_rule"),
    ],
)
def test_a_rule_that_cannot_be_is_one_sentence(kind: str | None, threshold: float | None, sentence: str) -> None:
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
