"""Weights of the loss that need a part that the model does not have."""

import pytest

from mythos.config.base import ConfigError
from mythos.config.load import load


def test_a_balance_loss_needs_experts() -> None:
    assert load(["model=debug", "objective.balance_loss=0.003"]).objective.balance_loss == 0.003
    assert load(["model=debug-dense", "objective.balance_loss=0"]).objective.balance_loss == 0
    with pytest.raises(ConfigError) as caught:
        load(["model=debug-dense", "objective.balance_loss=0.003"])
    assert str(caught.value) == (
        "objective.balance_loss is 0.003 but model.core_ffn.kind is dense, which has 0 experts to balance; set the "
        "weight to 0 or choose a model with a mixture of experts."
    )
