"""Compare the account with the model that is built and run."""

from dataclasses import replace

import pytest
import torch
from helpers import MODELS, fill, model_config, random_batch
from torch.utils.flop_counter import FlopCounterMode

from mythos.account.flops import forward_flops
from mythos.account.parameters import count_parameters
from mythos.config.injection import DiagonalInjection, LinearInjection
from mythos.config.model import HeadConfig, ModelConfig, MoEConfig
from mythos.model.mythos import Mythos

NAMES = ("debug", "debug-dense", "debug-mla", "quickstart", "140m", "560m-a210m", "3b", "30b", "1t")


def variants() -> list[ModelConfig]:
    base = model_config("debug")
    return [
        replace(base, head=HeadConfig(tied=False), norm_position="sandwich"),
        replace(base, injection=LinearInjection(), prelude_norm=False),
        replace(base, injection=DiagonalInjection(update_rule="parallel"), num_prelude_layers=0, num_coda_layers=0),
    ]


@pytest.mark.parametrize("config", [*map(model_config, NAMES), *variants()])
def test_parameters_are_exact(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = Mythos(config)
    assert count_parameters(config).total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("num_loops", [1, 5])
@pytest.mark.parametrize("name", MODELS)
def test_matrix_flops_are_exact(name: str, num_loops: int) -> None:
    config = model_config(name)
    if isinstance(config.core_ffn, MoEConfig):  # the counter does not support grouped products
        config = replace(config, core_ffn=replace(config.core_ffn, dispatch="naive"))
    model = Mythos(config)
    fill(model)
    batch = random_batch(config, batch=2, length=16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch, num_loops)
    expected = forward_flops(config, 16, num_loops).matrices
    assert counter.get_total_flops() == expected * batch.tokens_BS.numel()
