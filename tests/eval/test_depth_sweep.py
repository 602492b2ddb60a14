import math
import weakref

import numpy as np
import pytest
import torch
from helpers import fill, model_config, random_batch, random_model

from mythos.config.decoding import ExitRule
from mythos.config.halting import PonderHalting
from mythos.eval.depth_sweep import Sweep, summarize, sweep
from mythos.eval.exit_rule import leave
from mythos.eval.read_out import read_out
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


def test_loss_and_accuracy_equal_forwards_of_every_depth(model: Mythos) -> None:
    found = sweep(model, batches(model), LOOPS)
    assert found.num_tokens == 48
    for depth in range(1, LOOPS + 1):
        with torch.no_grad():
            total = sum(float(model(batch, depth).nll_XBS[-1].sum()) for batch in batches(model))
            right = sum(int((model.predict(batch, depth)[0][-1] == batch.targets_BS).sum()) for batch in batches(model))
        assert found.loss[depth - 1] == pytest.approx(total / 48, rel=1e-5)
        assert found.accuracy[depth - 1] == pytest.approx(right / 48)


def test_convergence_equals_the_trace_of_a_training_forward(model: Mythos) -> None:
    found = sweep(model, batches(model), LOOPS)
    with torch.no_grad():
        traces = [model(batch, LOOPS, 0, trace=True).trace for batch in batches(model)]
        states = [model.unroll(batch, LOOPS).states for batch in batches(model)]
    for key, figures in (("relative_change", "relative_change_T"), ("curvature_ratio", "curvature_ratio_T")):
        expected = np.mean([getattr(trace, figures).numpy() for trace in traces], axis=0)
        assert getattr(found, key) == pytest.approx(expected.tolist(), rel=1e-5)
    assert found.angle_degrees[0] == pytest.approx(90)
    cosines = torch.nn.functional.cosine_similarity
    for loop in range(1, LOOPS):
        angles = [torch.acos(cosines(one[loop + 1].double(), one[loop].double(), dim=-1)).mean() for one in states]
        assert found.angle_degrees[loop] == pytest.approx(math.degrees(np.mean(angles)), rel=1e-4)
        distances = [((one[loop + 1] - one[-1]).norm(dim=-1) / one[-1].norm(dim=-1)).mean() for one in states]
        assert found.distance_to_last[loop] == pytest.approx(float(np.mean(distances)), rel=1e-4, abs=1e-9)


def test_rules_sum_up_what_tokens_do(model: Mythos) -> None:
    found = sweep(model, batches(model), LOOPS)
    assert {point.rule for point in found.rules} >= {"quantile", "relative_change", "stable_argmax"}
    reads = [read_out(model, batch, LOOPS) for batch in batches(model)]
    for point in found.rules:
        rule = ExitRule(point.rule, point.threshold)
        left = [read.at(leave(rule, read)) for read in reads]
        assert point.loss == pytest.approx(torch.cat([one.nll_N for one in left]).double().mean().item())
        assert point.mean_loops == pytest.approx(torch.cat([one.num_loops_N for one in left]).double().mean().item())
        assert point.accuracy == pytest.approx(torch.cat([one.is_right_N for one in left]).double().mean().item())
        assert sum(point.loops_share) == pytest.approx(1)


def test_exits_move_with_the_noise_and_only_with_it(model: Mythos) -> None:
    still = sweep(model, batches(model), LOOPS, noise=0.0)
    assert all(point.changed_share == point.mean_shift == 0 for point in still.rules)
    disturbed = sweep(model, batches(model), LOOPS, noise=0.5)
    assert any(point.changed_share > 0.1 and point.mean_shift >= point.changed_share for point in disturbed.rules)
    assert disturbed.loss == still.loss
    again = sweep(model, batches(model), LOOPS, noise=0.5)
    assert again == disturbed
    assert not model.embedding._forward_hooks


def test_frozen_routing_repeats_the_experts_of_the_first_pass(model: Mythos) -> None:
    held_out = batches(model)
    held_out[0].targets_BS[1, 3:] = IGNORED
    found = sweep(model, held_out, 3)
    assert found.num_tokens == 39
    losses, right, shared = [], [], []
    for batch in held_out:
        keep_BS = batch.targets_BS != IGNORED
        frozen = model.unroll(batch, 3, freeze_routing=True)
        for loop in range(3):
            logits_NV = model.head.logits(model.before_head(frozen, loop), model.embedding.weight)[keep_BS].double()
            target_N = batch.targets_BS[keep_BS]
            losses.append(torch.nn.functional.cross_entropy(logits_NV, target_N, reduction="sum").item())
            right.append(int((logits_NV.argmax(-1) == target_N).sum()))
        expert_indices = model.unroll(batch, 3).expert_indices
        places = keep_BS.flatten().nonzero().flatten().tolist()
        sets = [[[set(row) for row in layer.tolist()] for layer in chosen] for chosen in expert_indices]
        for of_loop in sets:
            pairs = [(new[n], old[n]) for new, old in zip(of_loop, sets[0], strict=True) for n in places]
            shared.append(sum(len(new & old) / len(old) for new, old in pairs) / len(sets[0]))
    assert found.frozen_loss == pytest.approx((np.array(losses).reshape(2, 3).sum(0) / 39).tolist(), rel=1e-5)
    assert found.frozen_accuracy == pytest.approx((np.array(right).reshape(2, 3).sum(0) / 39).tolist())
    assert found.shared_expert_share == pytest.approx((np.array(shared).reshape(2, 3).sum(0) / 39).tolist())
    assert (found.frozen_loss[0], found.frozen_accuracy[0]) == (found.loss[0], found.accuracy[0])
    assert found.shared_expert_share[0] == 1
    assert 0 < found.shared_expert_share[2] < 1
    assert abs(found.frozen_loss[2] - found.loss[2]) > 1e-3


def test_a_dense_core_has_no_routing_to_freeze() -> None:
    dense = random_model(model_config("debug-dense", vocab_size=64)).eval()
    found = sweep(dense, batches(dense), 2)
    assert (found.shared_expert_share, found.frozen_loss, found.frozen_accuracy) == (None, None, None)


def test_the_states_of_one_run_are_gone_before_the_next_begins(model: Mythos, monkeypatch: pytest.MonkeyPatch) -> None:
    unroll, states = model.unroll, []

    def watched(*arguments, **options):
        assert not any(state() is not None for state in states)
        found = unroll(*arguments, **options)
        states.extend(weakref.ref(h_BSD) for h_BSD in found.states)
        return found

    monkeypatch.setattr(model, "unroll", watched)
    sweep(model, batches(model), 2)
    assert len(states) == 2 * 3 * 3


def test_the_summary_recovers_a_curve_that_saturates() -> None:
    loops = np.arange(1, 33)
    losses = (2.5 + 1.2 * np.exp(-1.5 * loops / 8)).tolist()
    zeros = [0.0] * 32
    found = summarize(Sweep(1, 0.0, losses, *[zeros] * 5, []), (1, 2, 4, 6, 8, 12, 16, 24, 32), 8.0)
    assert found.fitted is not None
    assert (found.fitted.floor, found.fitted.amplitude, found.fitted.rate) == pytest.approx((2.5, 1.2, 1.5), rel=1e-3)
    assert found.fitted.error < 1e-4
    assert found.best_depth == 32
    assert found.mean_minus_floor == pytest.approx(1.2 * math.exp(-1.5), rel=1e-3)
    assert found.twice_minus_mean == pytest.approx(1.2 * (math.exp(-3) - math.exp(-1.5)))
    shallow = summarize(Sweep(1, 0.0, losses[:10], *[zeros] * 5, []), (1, 2, 4), 8.0)
    assert (shallow.fitted, shallow.twice_minus_mean) == (None, None)
