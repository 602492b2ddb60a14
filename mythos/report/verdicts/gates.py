"""Verdict on the gates of the loop parts: whether they still pass what the loops compute."""

from mythos.config import records
from mythos.report.figures.gates import gate_names
from mythos.report.read import Run, by_index
from mythos.report.verdicts.check import Check, Verdict, judge
from mythos.report.verdicts.series import last

STUCK_SHARE = (0.5, 0.9)
"""Share of a gate's values above 0.98 in absolute value, in the loop where it is largest: amber, red."""


def gates(run: Run) -> Verdict | None:
    """Whether a gate is stuck at one, by the last measurement; a closed gate is how parts start."""
    return judge(_stuck(run, gate) for gate in gate_names(run))


def _stuck(run: Run, gate: str) -> Check | None:
    shares = {
        loop: last(series) for loop, series in by_index(run.series, lambda t: records.gate_near_1(gate, t)).items()
    }
    if not shares:
        return None
    loop = max(shares, key=lambda each: shares[each])
    finding = f"{100 * shares[loop]:.0f}% of the values of {gate.removeprefix('loop/')} are at 1 in loop {loop}"
    advice = "the gate no longer depends on its input: lower optim.lr, or leave the part out of model.loop.parts"
    return Check(finding, shares[loop], *STUCK_SHARE, advice, is_share=True)
