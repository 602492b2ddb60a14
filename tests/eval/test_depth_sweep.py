import math
import weakref

import numpy as np
import pytest
import torch
from helpers import fill, model_config, random_batch, random_model

from mythos.config.decoding import ExitRule
from mythos.config.halting import PonderHalting
from mythos.eval.depth_sweep import Sweep, summarize, sweep
from mythos.eval.exit_rule import exit_loops
from mythos.eval.token_metrics import token_metrics
from mythos.model.mythos import Mythos
from mythos.types import IGNORED

LOOPS = 6


@pytest.fixture(scope="module")
def model() -> Mythos:
    made = Mythos(model_config("debug", vocab_size=64), PonderHalting())
    fill(made)
    return made.eval()


def batches(model: Mythos):
    return [random_batch(model.config, batch=2, length=12, seed=seed) for seed in (1, 2)]


def test_loss_and_accuracy_equal_forwards_of_every_loop_count(model: Mythos) -> None:
    result = sweep(model, batches(model), LOOPS)
    assert result.num_tokens == 48
    for num_loops in range(1, LOOPS + 1):
        total, num_correct = 0.0, 0
        with torch.no_grad():
            for batch in batches(model):
                total += float(model(batch, num_loops).nll_XBS[-1].sum())
                num_correct += int((model.predict(batch, num_loops)[0][-1] == batch.targets_BS).sum())
        assert result.loss[num_loops - 1] == pytest.approx(total / 48, rel=1e-5)
        assert result.accuracy[num_loops - 1] == pytest.approx(num_correct / 48)


def test_convergence_equals_the_trace_of_a_training_forward(model: Mythos) -> None:
    result = sweep(model, batches(model), LOOPS)
    with torch.no_grad():
        traces = [model(batch, LOOPS, 0, trace=True).trace for batch in batches(model)]
        states = [model.unroll(batch, LOOPS).states for batch in batches(model)]
    for key, figures in (("relative_change", "relative_change_T"), ("curvature_ratio", "curvature_ratio_T")):
        expected = np.mean([getattr(trace, figures).numpy() for trace in traces], axis=0)
        assert getattr(result, key) == pytest.approx(expected.tolist(), rel=1e-5)
    assert result.angle_degrees[0] == pytest.approx(90)
    cosines = torch.nn.functional.cosine_similarity
    for loop in range(1, LOOPS):
        angles = [torch.acos(cosines(one[loop + 1].double(), one[loop].double(), dim=-1)).mean() for one in states]
        assert result.angle_degrees[loop] == pytest.approx(math.degrees(np.mean(angles)), rel=1e-4)
        distances = [((one[loop + 1] - one[-1]).norm(dim=-1) / one[-1].norm(dim=-1)).mean() for one in states]
        assert result.distance_to_last[loop] == pytest.approx(float(np.mean(distances)), rel=1e-4, abs=1e-9)


def test_rule_points_are_means_over_token_scores(model: Mythos) -> None:
    result = sweep(model, batches(model), LOOPS)
    assert {point.rule for point in result.rules} >= {"quantile", "relative_change", "stable_argmax"}
    of_batches = [token_metrics(model, batch, LOOPS) for batch in batches(model)]
    for point in result.rules:
        rule = ExitRule(point.rule, point.threshold)
        scores = [metrics.at(exit_loops(rule, metrics)) for metrics in of_batches]
        assert point.loss == pytest.approx(torch.cat([one.nll_N for one in scores]).double().mean().item())
        assert point.mean_loops == pytest.approx(torch.cat([one.num_loops_N for one in scores]).double().mean().item())
        assert point.accuracy == pytest.approx(torch.cat([one.is_correct_N for one in scores]).double().mean().item())
        assert sum(point.loops_share) == pytest.approx(1)


def test_exits_change_with_the_noise_and_only_with_it(model: Mythos) -> None:
    clean = sweep(model, batches(model), LOOPS, noise=0.0)
    assert all(point.changed_share == point.mean_shift == 0 for point in clean.rules)
    perturbed = sweep(model, batches(model), LOOPS, noise=0.5)
    assert any(point.changed_share > 0.1 and point.mean_shift >= point.changed_share for point in perturbed.rules)
    assert perturbed.loss == clean.loss
    again = sweep(model, batches(model), LOOPS, noise=0.5)
    assert again == perturbed
    assert not model.embedding._forward_hooks


def test_frozen_routing_uses_the_experts_of_the_first_loop(model: Mythos) -> None:
    held_out = batches(model)
    held_out[0].targets_BS[1, 3:] = IGNORED
    result = sweep(model, held_out, 3)
    assert result.num_tokens == 39
    losses, num_correct, shared = [], [], []
    for batch in held_out:
        keep_BS = batch.targets_BS != IGNORED
        frozen = model.unroll(batch, 3, freeze_routing=True)
        for loop in range(3):
            logits_NV = model.head.logits(model.before_head(frozen, loop), model.embedding.weight)[keep_BS].double()
            target_N = batch.targets_BS[keep_BS]
            losses.append(torch.nn.functional.cross_entropy(logits_NV, target_N, reduction="sum").item())
            num_correct.append(int((logits_NV.argmax(-1) == target_N).sum()))
        expert_indices = model.unroll(batch, 3).expert_indices
        kept = keep_BS.flatten().nonzero().flatten().tolist()
        sets = [[[set(row) for row in layer.tolist()] for layer in of_loop] for of_loop in expert_indices]
        for of_loop in sets:
            pairs = [(new[n], old[n]) for new, old in zip(of_loop, sets[0], strict=True) for n in kept]
            shared.append(sum(len(new & old) / len(old) for new, old in pairs) / len(sets[0]))
    assert result.frozen_loss == pytest.approx((np.array(losses).reshape(2, 3).sum(0) / 39).tolist(), rel=1e-5)
    assert result.frozen_accuracy == pytest.approx((np.array(num_correct).reshape(2, 3).sum(0) / 39).tolist())
    assert result.shared_expert_share == pytest.approx((np.array(shared).reshape(2, 3).sum(0) / 39).tolist())
    assert (result.frozen_loss[0], result.frozen_accuracy[0]) == (result.loss[0], result.accuracy[0])
    assert result.shared_expert_share[0] == 1
    assert 0 < result.shared_expert_share[2] < 1
    assert abs(result.frozen_loss[2] - result.loss[2]) > 1e-3


def test_a_dense_core_has_no_routing_to_freeze() -> None:
    dense = random_model(model_config("debug-dense", vocab_size=64)).eval()
    result = sweep(dense, batches(dense), 2)
    assert (result.shared_expert_share, result.frozen_loss, result.frozen_accuracy) == (None, None, None)


def test_the_states_of_one_run_are_freed_before_the_next_begins(model: Mythos, monkeypatch: pytest.MonkeyPatch) -> None:
    unroll, states = model.unroll, []

    def watched(*arguments, **options):
        assert not any(state() is not None for state in states)
        unrolled = unroll(*arguments, **options)
        states.extend(weakref.ref(h_BSD) for h_BSD in unrolled.states)
        return unrolled

    monkeypatch.setattr(model, "unroll", watched)
    sweep(model, batches(model), 2)
    assert len(states) == 2 * 3 * 3


def test_the_summary_recovers_a_curve_that_saturates() -> None:
    loops = np.arange(1, 33)
    losses = (2.5 + 1.2 * np.exp(-1.5 * loops / 8)).tolist()
    zeros = [0.0] * 32
    summary = summarize(Sweep(1, 0.0, losses, *[zeros] * 5, []), (1, 2, 4, 6, 8, 12, 16, 24, 32), 8.0)
    fitted = summary.fitted
    assert fitted is not None
    assert (fitted.floor, fitted.amplitude, fitted.rate) == pytest.approx((2.5, 1.2, 1.5), rel=1e-3)
    assert fitted.error < 1e-4
    assert summary.best_depth == 32
    assert summary.mean_minus_floor == pytest.approx(1.2 * math.exp(-1.5), rel=1e-3)
    assert summary.twice_minus_mean == pytest.approx(1.2 * (math.exp(-3) - math.exp(-1.5)))
    shallow = summarize(Sweep(1, 0.0, losses[:10], *[zeros] * 5, []), (1, 2, 4), 8.0)
    assert (shallow.fitted, shallow.twice_minus_mean) == (None, None)
