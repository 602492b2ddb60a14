import torch

from mythos.optim.skippable import SkippableStep


def test_a_skipped_step_changes_neither_weights_nor_moments_nor_counts() -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    gate = SkippableStep(optimizer)
    weight.grad = torch.full((3,), 2.0)
    optimizer.step()
    before = weight.detach().clone()
    state = {key: value.clone() for key, value in optimizer.state[weight].items()}
    gate.is_open = False
    weight.grad = torch.full((3,), torch.nan)
    optimizer.step()
    assert torch.equal(weight, before)
    assert all(torch.equal(optimizer.state[weight][key], value) for key, value in state.items())
    gate.is_open = True
    weight.grad = torch.full((3,), 2.0)
    optimizer.step()
    assert (weight < before).all()
    assert optimizer.state[weight]["step"] == 2


def test_a_closure_runs_with_gradients_and_decides() -> None:
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    gate = SkippableStep(optimizer)

    def closure() -> torch.Tensor:
        loss = weight.square().sum()
        loss.backward()
        gate.is_open = False
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert torch.equal(weight, torch.ones(2))
    assert torch.equal(weight.grad, torch.full((2,), 2.0))
