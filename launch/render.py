"""Filling in the files of ``launch/templates``: ``{{name}}`` is replaced, nothing else is understood."""

import re
import shlex
from pathlib import Path

FOLDER = Path(__file__).parent / "templates"


def render(template: str, /, **values: str | int) -> str:
    """A template's text with every ``{{key}}`` replaced; a value of several lines goes on at the key's indentation.

    A line that holds nothing but a key whose value is empty disappears.
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
    """Assignments that keep NCCL and gloo on one network, if one was named."""
    if interface is None:
        return ""
    return (
        "# the network that was named: what NCCL and gloo choose may be one that leads nowhere\n"
        f"export NCCL_SOCKET_IFNAME={shlex.quote(interface)} GLOO_SOCKET_IFNAME={shlex.quote(interface)}"
    )
