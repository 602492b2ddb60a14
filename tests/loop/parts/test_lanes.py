"""Two lanes: the equation, and the doubly stochastic mix."""

import pytest
import torch
from helpers import MODELS, random_batch, relative_error
from part_pairs import NUM_LOOPS, pair, state_and_gradients, unrolled
from torch import Tensor

from mythos.config.loop_parts.lanes import LanesConfig
from mythos.loop.parts.lanes import unit_interval


@pytest.mark.parametrize("name", MODELS)
def test_lanes_are_hyper_connections_with_the_change_of_the_loop(name: str) -> None:
    """X' = M X + beta (F(alpha X) - alpha X); loops beyond the tables read the last row."""
    with_lanes, without = pair(LanesConfig(), name=name, max_loops=4)
    part = with_lanes.core.parts[0]
    with torch.no_grad():
        part.mix.weight.copy_(torch.tensor([[0.3], [0.9], [1.0], [0.2]]))
    alpha_TN, mix_T1 = part.read.weight + torch.tensor([1.0, 0.0]), part.mix.weight
    beta_TN = part.write.weight + torch.tensor([1.0, 0.0])
    swap = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    lanes: list[Tensor] = []

    def equation(loop: int, h_BSD: Tensor, e_BSD: Tensor, rest) -> Tensor:
        row = min(loop, 3)
        lanes_NBSD = torch.stack((h_BSD, lanes[-1] if lanes else e_BSD))
        u_BSD = torch.einsum("n,nbsd->bsd", alpha_TN[row], lanes_NBSD)
        mixed_NBSD = torch.einsum("mn,nbsd->mbsd", torch.eye(2) + mix_T1[row] * swap, lanes_NBSD)
        new_NBSD = mixed_NBSD + beta_TN[row].view(2, 1, 1, 1) * (rest(u_BSD) - u_BSD)
        lanes.append(new_NBSD[1])
        return new_NBSD[0]

    batch = random_batch(without.config, num_documents=2)
    expected = unrolled(without, equation, torch.zeros(3, 13, 32))
    (expected, of_rest), of_part = state_and_gradients(without, expected), grads(part)
    found, of_all = state_and_gradients(with_lanes, with_lanes(batch, NUM_LOOPS).state_BSD)
    assert relative_error(found, expected) < 1e-5
    assert len(of_part) == 3
    for key, gradient in (of_rest | of_part).items():
        assert relative_error(of_all[key], gradient) < 1e-4, key


def grads(part: torch.nn.Module) -> dict[str, Tensor]:
    """Gradients that the reference left in the part's tables, by their names in the model."""
    found = {f"core.parts.0.{name}": value.grad.clone() for name, value in part.named_parameters()}
    part.zero_grad()
    return found


def test_the_mix_stays_doubly_stochastic_and_keeps_its_gradient() -> None:
    weight = torch.tensor([-0.7, 0.0, 0.4, 1.0, 3.0], requires_grad=True)
    mix = unit_interval(weight)
    assert torch.equal(mix, torch.tensor([0.0, 0.0, 0.4, 1.0, 1.0]))
    mix.sum().backward()
    assert torch.equal(weight.grad, torch.ones(5))


def test_lane_k_starts_as_e_and_follows_the_changes() -> None:
    model, _ = pair(LanesConfig(), is_new=True)
    part = model.core.parts[0]
    h, e, y = torch.randn(3, 2, 5, 32).unbind(0)
    assert torch.equal(part.start(h, e), e)
    with torch.no_grad():
        read, mix, write = torch.zeros(2), torch.zeros(1), torch.tensor([0.0, 0.5])
        new_h, new_k = part.update(h, e, h, y, read, mix, write)
    assert torch.equal(new_h, y)
    torch.testing.assert_close(new_k, e + 0.5 * (y - h))
    assert {name: value.item() for name, value in part.figures().items()} == {"read": 0, "mix": 0, "write": 0}
