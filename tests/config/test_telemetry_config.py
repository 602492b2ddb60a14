import pytest
from helpers import run_config

from mythos.config.base import ConfigError
from mythos.config.telemetry import TelemetryConfig


def test_the_loss_is_measured_at_powers_of_two_and_the_mean() -> None:
    telemetry = TelemetryConfig()
    assert telemetry.loops_read(1.0) == (1,)
    assert telemetry.loops_read(8.0) == (1, 2, 4, 8)
    assert telemetry.loops_read(11.6) == (1, 2, 4, 8, 12)
    assert TelemetryConfig(trace_num_loops=(6, 2, 6)).loops_read(8.0) == (2, 6)


def test_power_iterations_are_part_of_the_telemetry() -> None:
    assert run_config("telemetry.jacobian_every=100").telemetry.jacobian_every == 100
    with pytest.raises(ConfigError, match=r"^telemetry: jacobian_every is 30 but trace_every is 50; .* a multiple"):
        run_config("telemetry.jacobian_every=30")


def test_a_limit_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"telemetry.alarms.token_correlation"):
        run_config("telemetry.alarms.token_correlation=1.5")
    with pytest.raises(ConfigError, match=r"telemetry.alarms.nothing: no such key"):
        run_config("telemetry.alarms.nothing=1")
