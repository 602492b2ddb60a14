from dataclasses import replace

import pytest
import torch
from helpers import MODELS, fill, gradients, model_config, random_batch, relative_error

from mythos.config.halting import ActHalting, FixedHalting, PonderHalting
from mythos.config.injection import AdditiveInjection, DiagonalInjection, LinearInjection
from mythos.config.model import ModelConfig
from mythos.loop.remat import Remat
from mythos.model.mythos import Mythos
from mythos.moe import router
from mythos.types import Regularizers

PARTS = {
    **{name: {"name": name} for name in MODELS},
    "linear": {"injection": LinearInjection()},
    "additive-sandwich": {"injection": AdditiveInjection(), "norm_position": "sandwich"},
    "parallel-zoh": {"injection": DiagonalInjection(update_rule="parallel", discretization="zoh")},
    "scaled": {"residual_scale": "inverse_sqrt"},
}


def backward(config: ModelConfig, halting, remat: Remat) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = Mythos(config, halting)
    fill(model)
    model.core.remat = remat
    batch = random_batch(config, num_documents=2)
    regularizers = Regularizers(consistency=True)
    output = model(batch, 5, 3, exits=(1, 4), noise_seed=1, trace=True, regularizers=regularizers)
    stats = 0.0 if output.router_stats is None else output.router_stats.z_loss[-3:].mean()
    loss = (output.exit_prob_XBS * output.nll_XBS).sum() + 0.01 * stats + output.change_T[-3:].sum()
    loss.backward()
    return loss.detach(), gradients(model)


@pytest.mark.parametrize("halting", [FixedHalting(), ActHalting(), PonderHalting()])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("remat", ["loop", "block", "offload"])
def test_recomputed_gradients_equal_kept_ones(part: str, remat: str, halting) -> None:
    options = dict(PARTS[part])
    config = model_config(options.pop("name", "debug"), **options)
    policy = Remat("loop" if remat == "offload" else remat, offload_states=remat == "offload")
    kept, expected = backward(config, halting, Remat())
    again, result = backward(config, halting, policy)
    assert torch.equal(kept, again)
    assert result.keys() == expected.keys()
    for name, gradient in expected.items():
        assert relative_error(result[name], gradient) < 1e-6, name


@pytest.mark.parametrize("remat", ["loop", "block"])
def test_the_recomputation_repeats_the_expert_indices(remat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random router would give other indices in the backward if routing were recomputed."""
    choose = router.route
    generator = torch.Generator().manual_seed(0)

    def at_random(logits_NE, bias_E, config, expert_indices_NK=None):
        return choose(logits_NE, torch.randn(bias_E.shape, generator=generator), config, expert_indices_NK)

    monkeypatch.setattr(router, "route", at_random)
    config = model_config("debug")
    results = []
    for policy in (Remat(), Remat(remat)):
        generator.manual_seed(5)
        results.append(backward(config, FixedHalting(), policy))
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        assert relative_error(results[1][1][name], gradient) < 1e-6, name


def saved_bytes(remat: Remat, num_loops: int) -> int:
    """Distinct memory that the graph saves for the backward, without parameters."""
    config = replace(model_config("debug"), dim=64)
    model = Mythos(config)
    fill(model)
    model.core.remat = remat
    batch = random_batch(config, batch=2, length=64)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(batch, num_loops)
    del output
    return sum(kept.values())


def test_recomputed_blocks_save_less_than_no_recomputation() -> None:
    per_loop = {policy: saved_bytes(Remat(policy), 6) - saved_bytes(Remat(policy), 5) for policy in ("none", "block")}
    state = 2 * 64 * 64 * 4
    assert per_loop["none"] > 20 * state
    assert per_loop["block"] < 0.35 * per_loop["none"]
