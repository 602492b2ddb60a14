"""Entry points of other packages that a configuration can choose by name."""

from typing import Final

from mythos.config import plugins
from mythos.config.objective import TERM_PLUGINS
from mythos.config.optim import OPTIMIZER_PLUGINS
from mythos.config.parts import ENTRY_POINTS
from mythos.config.tracking import TRACKER_PLUGINS
from mythos.doctor.finding import Finding

_GROUPS: Final = {
    "loop parts": ENTRY_POINTS,
    "loss terms": TERM_PLUGINS,
    "optimizers": OPTIMIZER_PLUGINS,
    "trackers": TRACKER_PLUGINS,
}


def installed_plugins() -> list[Finding]:
    """Name, package and version of every entry point, one finding for each group that has any; imports none."""
    described = {check: plugins.described(group) for check, group in _GROUPS.items()}
    return [
        Finding(check=check, status="ok", found=", ".join(f"{one.name} ({one.package} {one.version})" for one in each))
        for check, each in described.items()
        if each
    ]
