import pytest
from helpers import run_config

from mythos.config.balance import NoBalance, QuantileBalance, SignBalance
from mythos.config.base import ConfigError


def test_balancing_is_a_group_and_off_is_a_kind() -> None:
    assert run_config().balance == QuantileBalance(fraction=1.0, unused_loops="copy_last")
    assert run_config("balance=sign").balance == SignBalance(rate=1e-3, unused_loops="keep")
    assert run_config("balance=none").balance == NoBalance()
    assert run_config("balance.unused_loops=keep").balance.unused_loops == "keep"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("balance.fraction=0", "balance: fraction is 0, which balances nothing; set balance=none."),
        ("balance=sign balance.rate=0", "balance: rate is 0, which balances nothing; set balance=none."),
        ("balance.kind=signs", "balance.kind: 'signs' was given; it is one of 'none', 'sign', 'quantile'."),
        ("optim.router_bias_rate=1e-3", "optim.router_bias_rate: no such key"),
    ],
)
def test_mistakes_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_config(*override.split())
    assert str(error.value).startswith(sentence)
