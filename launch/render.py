"""Rendering of the files of ``launch/templates``: only ``{{name}}`` is replaced."""

import re
import shlex
from pathlib import Path

FOLDER = Path(__file__).parent / "templates"


def render(template: str, /, **values: str | int) -> str:
    """A template's text with every ``{{key}}`` replaced; a value of several lines is indented like the key.

    A line that contains only a key with an empty value is removed.
    """
    text = (FOLDER / template).read_text(encoding="utf-8")
    keys = set(re.findall(r"\{\{(\w+)\}\}", text))
    assert keys == values.keys(), f"{template}: {sorted(keys ^ values.keys())} on one side only"

    def fill(match: re.Match) -> str:
        value = str(values[match["key"]])
        return re.sub(r"\n(?!\n)", "\n" + match["indentation"], value)

    for key in (key for key in keys if values[key] == ""):
        text = re.sub(rf"^ *\{{\{{{key}\}}\}}\n", "", text, flags=re.MULTILINE)
    return re.sub(r"(?P<indentation>(?:(?<=\n)|^) *|)\{\{(?P<key>\w+)\}\}", lambda m: m["indentation"] + fill(m), text)


def network(interface: str | None) -> str:
    """Shell assignments that restrict NCCL and gloo to one network interface; empty without one."""
    if interface is None:
        return ""
    return (
        "# the configured network: the one that NCCL and gloo choose may not connect the nodes\n"
        f"export NCCL_SOCKET_IFNAME={shlex.quote(interface)} GLOO_SOCKET_IFNAME={shlex.quote(interface)}"
    )
