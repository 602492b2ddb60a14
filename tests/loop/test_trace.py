import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mythos.layers.rope import Rotation
from mythos.loop import recorder as recorder_module
from mythos.loop.change import curvature_ratio
from mythos.loop.part import LoopInputs, LoopState
from mythos.loop.recorder import LoopRecorder
from mythos.loop.run import LoopStats, Schedule
from mythos.loop.trace import (
    expert_trace,
    token_correlation,
)
from mythos.loop.variable_depth import SAME_DEPTH, Sequences, variable_depth_batch

SHAPE = (2, 5, 7)


def started(h: Tensor, num_loops: int, num_experts: int, sequences: Sequences = SAME_DEPTH) -> LoopRecorder:
    """A recorder at the start of a forward from this state."""
    recorder = LoopRecorder(h[..., 0], num_experts, sequences)
    recorder.start(Schedule(num_loops), LoopState(h), LoopInputs(h, Rotation(h, h), None))
    return recorder


def see(recorder: LoopRecorder, loop: int, new: Tensor, old: Tensor, watched: list, expert_indices: list) -> None:
    recorder.see(loop, LoopState(old), LoopState(new), LoopStats([], watched, expert_indices))


def states(num: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) for _ in range(num)]


def norm(vector) -> float:
    return math.sqrt(sum(float(x) ** 2 for x in vector.double()))


def test_token_correlation_is_the_mean_cosine_of_all_pairs() -> None:
    (h,) = states(1)
    for row in range(SHAPE[0]):
        pairs = [(i, j) for i in range(SHAPE[1]) for j in range(SHAPE[1]) if i != j]
        cosines = [
            float(h[row, i].double() @ h[row, j].double()) / (norm(h[row, i]) * norm(h[row, j])) for i, j in pairs
        ]
        assert token_correlation(h)[row].item() == pytest.approx(sum(cosines) / len(pairs), abs=1e-6)


def test_token_correlation_of_collapsed_and_of_single_tokens() -> None:
    (h,) = states(1)
    collapsed = h[:, :1] * torch.arange(1.0, 6.0)[:, None]
    torch.testing.assert_close(token_correlation(collapsed), torch.ones(2))
    torch.testing.assert_close(token_correlation(h[:, :1]), torch.zeros(2), atol=1e-6, rtol=0)


def random_expert_indices(num_layers: int, num_loops: int, num_tokens: int, num_active: int, num_experts: int):
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(num_layers, num_loops, num_tokens, num_experts, generator=generator)
    return scores.topk(num_active).indices.to(torch.int16)


def test_expert_sets_are_compared_as_sets() -> None:
    layers, loops, tokens, active, experts = 2, 4, 9, 2, 5
    choice = random_expert_indices(layers, loops, tokens, active, experts)
    choice[0, 2] = choice[0, 1].flip(-1)  # the same sets in another order
    choice[:, 3, 6:] = -1  # tokens that did not run the last loop
    found = expert_trace(choice, experts)
    chosen = {
        (layer, loop, token): set(choice[layer, loop, token].tolist())
        for layer in range(layers)
        for loop in range(loops)
        for token in range(tokens if loop < 3 else 6)
    }
    overlap = np.zeros((loops, loops))
    for loop in range(loops):
        running = range(tokens if loop < 3 else 6)
        for layer in range(layers):
            union = [set().union(*(chosen[layer, t, n] for t in range(loop + 1))) for n in running]
            diversity = sum(map(len, union)) / (active * len(running))
            assert found.path_diversity_TL[loop, layer].item() == pytest.approx(diversity, rel=1e-6)
            pairs = [(chosen[layer, loop - 1, n], chosen[layer, loop, n]) for n in running] if loop else []
            identical = sum(a == b for a, b in pairs) / len(running)
            disjoint = sum(not a & b for a, b in pairs) / len(running)
            assert found.identical_TL[loop, layer].item() == pytest.approx(identical, rel=1e-6)
            assert found.disjoint_TL[loop, layer].item() == pytest.approx(disjoint, rel=1e-6)
            for other in range(loop + 1):
                sets = [(chosen[layer, loop, n], chosen[layer, other, n]) for n in running]
                mean = sum(len(a & b) / len(a | b) for a, b in sets) / len(running)
                overlap[loop, other] += mean / layers
    assert found.identical_TL[2, 0] == 1
    lower = np.tril(overlap) + np.tril(overlap, -1).T
    np.testing.assert_allclose(found.overlap_TT.numpy(), lower, rtol=1e-6)


def test_autocast_does_not_round_the_comparison() -> None:
    choice = random_expert_indices(2, 6, 50, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rough = expert_trace(choice, 8)
    assert all(map(torch.equal, rough, expert_trace(choice, 8)))


@pytest.mark.parametrize("loops_B", [None, [3, 1]])
def test_nothing_waits_for_the_device(loops_B: list[int] | None) -> None:
    """Tensors without values: to ask for one of them is an error."""
    num_tokens = 2 * SHAPE[1]
    with FakeTensorMode():
        rows = SAME_DEPTH if loops_B is None else variable_depth_batch(np.array(loops_B), torch.device("cpu"))
        h, choice = torch.zeros(SHAPE, requires_grad=True), torch.zeros(num_tokens, 2, dtype=torch.int16)
        recorder = started(h, 3, 8, rows)
        for loop in range(3):
            num_rows = 2 if loops_B is None else rows.num_active_T[loop]
            new = 2 * h[:num_rows]
            see(recorder, loop, new, h[:num_rows], [torch.zeros(num_rows)], [choice[: num_rows * SHAPE[1]]])
            h = torch.cat((new, h[num_rows:]))
        h.sum().backward()
        found = recorder.trace()
    assert found.experts.overlap_TT.shape == (3, 3)


def test_one_loop_has_no_loop_before_it() -> None:
    found = expert_trace(random_expert_indices(1, 1, 4, 2, 5), 5)
    assert found.identical_TL.tolist() == found.disjoint_TL.tolist() == [[0.0]]
    assert found.path_diversity_TL.item() == found.overlap_TT.item() == 1


def test_the_recorder_looks_at_evenly_spaced_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MAX_TOKENS", 4)
    first, second, third = states(3)
    recorder = started(first, 2, 5)
    assert recorder.stride == 3  # ten tokens, of which places 0 and 3 of each row are seen
    (choice,) = random_expert_indices(1, 1, 10, 2, 5)[0][None]
    see(recorder, 0, second, first, [], [choice])
    see(recorder, 1, third, second, [], [choice])
    found = recorder.trace()
    seen = [0, 3]
    rms = third[:, seen].square().mean(-1).sqrt().mean()
    torch.testing.assert_close(found.state_norm_T[1], rms)
    torch.testing.assert_close(found.token_correlation_T[1], token_correlation(third[:, seen]).mean())
    bend = curvature_ratio(third - second, second - first)[:, seen].mean()
    torch.testing.assert_close(found.curvature_ratio_T, torch.stack((torch.zeros(()), bend)))
    assert found.experts.identical_TL.tolist() == [[0.0], [1.0]]


def test_a_row_that_enters_late_has_no_change_before_its_first_loop() -> None:
    h = states(4)
    rows = variable_depth_batch(np.array([3, 2]), h[0].device)
    recorder = started(h[0], 3, 0, rows)
    see(recorder, 0, h[1][:1], h[0][:1], [], [None])
    see(recorder, 1, h[2], torch.cat((h[1][:1], h[0][1:])), [], [None])
    see(recorder, 2, h[3], h[2], [], [None])
    found = recorder.trace()
    bends = [
        curvature_ratio((h[2] - h[1])[:1], (h[1] - h[0])[:1]).mean(),
        curvature_ratio((h[3] - h[2])[1:], (h[2] - h[0])[1:]).mean(),
    ]
    assert found.num_rows_T.tolist() == [2, 2, 1]
    assert found.curvature_ratio_T[0] == 0
    assert found.curvature_ratio_T[1].item() == pytest.approx(sum(map(float, bends)) / 2, rel=1e-6)
    assert found.experts is None
