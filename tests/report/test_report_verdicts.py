from collections.abc import Callable
from pathlib import Path

import pytest

from mythos.config import records
from mythos.report.page import write_report
from mythos.report.read import read_run
from mythos.report.verdicts.experts import routing

MakeRun = Callable[..., Path]
MIXTURE = ("model.core_ffn.num_experts=64", "model.core_ffn.num_active=8")


def telemetry(step: int, violation: float, idle: float = 0.0, identical: float = 0.25) -> dict[str, float]:
    """Eleven loops of two layers; those beyond the mean depth of 8 are as uneven as possible."""
    line: dict[str, float] = {"step": step, "time": float(step), "tokens": 100 * step}
    for layer in range(2):
        line[records.idle_steps(layer)] = idle * layer
        for loop in range(11):
            line[records.load_violation(layer, loop)] = violation + 0.1 * layer if loop < 8 else 7.0
            line[records.identical_experts(layer, loop)] = identical if loop < 8 else 1.0
    return line


@pytest.mark.parametrize(
    ("violations", "sentence"),
    [
        (
            (6.0, 0.1),
            "Routing is balanced: at the last measurement the load violation of the first 8 loops is 0.15 of "
            "at most 7; its largest was 6.05, at step 50.",
        ),
        (
            (6.0, 1.0),
            "Routing is uneven but recovering: at the last measurement the load violation of the first 8 "
            "loops is 1.05 of at most 7; its largest was 6.05, at step 50.",
        ),
        ((2.0, 1.9), "Routing is uneven: at the last measurement the load violation of the first 8 loops is 1.95"),
        (
            (6.0, 6.5),
            "Routing has collapsed: most tokens use the same experts: at the last measurement the load "
            "violation of the first 8 loops is 6.55 of at most 7; its largest was 6.55, at step 100.",
        ),
    ],
)
def test_the_verdict_on_routing_states_its_numbers(make_run: MakeRun, violations, sentence: str) -> None:
    lines = [{"schema": records.SCHEMA}, *(telemetry(50 * (i + 1), each) for i, each in enumerate(violations))]
    verdict = routing(read_run(make_run(*MIXTURE, lines=lines)))
    assert verdict is not None
    assert verdict.text.startswith(sentence)
    assert "No expert is idle. From one loop to the next 25% of the tokens keep all of their experts." in verdict.text


def test_idle_experts_are_named(make_run: MakeRun) -> None:
    lines = [{"schema": records.SCHEMA}, telemetry(50, 3.0, idle=40)]
    verdict = routing(read_run(make_run(*MIXTURE, lines=lines)))
    assert "The least-loaded expert has had no token for 40 steps." in str(verdict)


def test_a_dense_model_and_a_run_without_telemetry_have_no_verdict(make_run: MakeRun) -> None:
    assert routing(read_run(make_run("model=debug-dense", trace_every=100, name="dense"))) is None
    assert routing(read_run(make_run(name="bare"))) is None


def test_the_page_shows_the_verdict(make_run: MakeRun, tmp_path: Path) -> None:
    page = write_report([make_run(trace_every=100)], tmp_path / "page")
    assert "<b>✓ Green</b> Routing is balanced: at the last measurement" in page.read_text(encoding="utf-8")
