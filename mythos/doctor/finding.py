"""The result of one check."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

Status = Literal["ok", "warning", "fails"]
_SEVERITY: Final[dict[Status, int]] = {"ok": 0, "warning": 1, "fails": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result of one check: what was found, what was expected, and what to do if they differ."""

    check: str
    status: Status
    found: str
    expected: str = ""
    """Empty without an expectation."""
    advice: str = ""
    """Empty if the check passes."""

    def __str__(self) -> str:
        expected = f", expected {self.expected}" if self.expected else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.status:<9}{self.check:<18}{self.found}{expected}{advice}"


def worst(findings: Sequence[Finding]) -> Status:
    """The worst status."""
    return max((finding.status for finding in findings), key=_SEVERITY.__getitem__, default="ok")


def joined(by_host: Sequence[tuple[str, Sequence[Finding]]]) -> list[Finding]:
    """Join the findings of several nodes to one per check: the worst, with the hosts that share its status."""
    if len(by_host) == 1:
        return list(by_host[0][1])
    checks = dict.fromkeys(finding.check for _, findings in by_host for finding in findings)
    joined_findings = []
    for check in checks:
        found = [(host, one) for host, findings in by_host for one in findings if one.check == check]
        status = worst([one for _, one in found])
        hosts = [host for host, one in found if one.status == status]
        first = next(one for _, one in found if one.status == status)
        where = f"{hosts[0]} and {len(hosts) - 1} more" if len(hosts) > 1 else hosts[0]
        joined_findings.append(replace(first, found=f"{first.found} ({where})"))
    return joined_findings
