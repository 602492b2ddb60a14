from types import SimpleNamespace

import pytest
import torch
from helpers import model_config, random_batch, random_model

from mythos.optim.groups import grouping
from mythos.parallel import gradients
from mythos.parallel.gradients import sample_weights, squared_norms, trained_names, update_squares
from mythos.parallel.partition import partition_of

GROUP_OF = grouping(model_config("debug"))
TRAINER = SimpleNamespace(strategy=SimpleNamespace(optimizers=[torch.optim.SGD([torch.zeros(1)])]))


def sample(model) -> dict[str, list[torch.Tensor]]:
    return sample_weights(partition_of(model, torch.optim.SGD(model.parameters())), trained_names(model), GROUP_OF)


def by_group(model, figure) -> dict[str, float]:
    """Sums over the parameters of each group."""
    sums: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        sums[GROUP_OF(name)] = sums.get(GROUP_OF(name), 0.0) + figure(name, parameter)
    return sums


def test_squared_norms_of_groups_add_up_to_the_global_norm() -> None:
    model = random_model(model_config("debug"))
    model(random_batch(model.config), 3).nll_XBS.mean().backward()
    found = squared_norms(TRAINER, SimpleNamespace(model=model, group_of=GROUP_OF))
    expected = by_group(model, lambda _, p: p.grad.double().square().sum().item())
    assert found.keys() == expected.keys() == {"hidden", "experts", "other"}
    for group, value in expected.items():
        assert found[group].item() == pytest.approx(value, rel=1e-5)
    total = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert sum(found.values()).sqrt().item() == pytest.approx(total.item(), rel=1e-6)


def test_a_group_without_gradients_is_absent() -> None:
    model = random_model(model_config("debug"))
    model.embedding.weight.grad = torch.ones_like(model.embedding.weight)
    assert squared_norms(TRAINER, SimpleNamespace(model=model, group_of=GROUP_OF)).keys() == {"other"}


def test_update_norms_are_exact_if_every_weight_is_sampled() -> None:
    model = random_model(model_config("debug"))
    before, old = sample(model), {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter *= 1 + 1e-2 / (1 + number)
    found = update_squares(before, sample(model))
    changes = by_group(model, lambda name, p: (p.detach() - old[name]).double().square().sum().item())
    sizes = by_group(model, lambda name, _: old[name].double().square().sum().item())
    for group, change in changes.items():
        assert found[group].tolist() == pytest.approx([change, sizes[group]], rel=1e-4)


def test_a_sample_of_the_weights_estimates_their_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "_MAX_SAMPLES", 500)
    layer = torch.nn.Linear(64, 256, bias=False)
    columns = torch.linspace(0, 1, 64)  # unequal, so that a stride of 32 would see two of them
    layer.weight.data = columns * torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    model = torch.nn.ModuleDict({"embedding": layer})
    _, taken = sample(model)["other"]
    assert len(taken) <= 500
    assert taken.norm().item() == pytest.approx(layer.weight.norm().item(), rel=0.1)
