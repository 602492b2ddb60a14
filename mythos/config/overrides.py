"""Overrides as texts: quote a value, and refuse what Hydra cannot read by one sentence."""

import os.path
import re
import shlex
from typing import Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mythos.config.base import ConfigError

_FORM: Final = re.compile(
    r"(?P<sign>~|\+{0,2})(?P<key>\w[\w-]*(?:[./@][\w-]+)*)(?:=(?P<value>.*))?", re.ASCII | re.DOTALL
)


def quoted(key: str, value: Any) -> str:
    """Return an override whose value reaches the configuration unchanged, whatever characters a text has."""
    match value:
        case str():
            return f"{key}=" + _in_quotes(value, "'")
        case bool() | None:
            return f"{key}={'null' if value is None else str(value).lower()}"
        case _:
            return f"{key}={value!r}"


def check_override(override: str, several: bool = False) -> None:
    """Check that Hydra can read an override.

    Args:
        several: whether it may have several values, as in a sweep.

    Raises:
        ConfigError: it cannot; the sentence says how to write it.
    """
    form = _FORM.fullmatch(override)
    if form is None or (form["value"] is None and form["sign"] != "~"):
        raise ConfigError(f"{override}: not understood; an override is written key=value.")
    key, value = form["key"], form["value"]
    if key.partition(".")[0].partition("/")[0] == "hydra":
        raise ConfigError(f"{override}: Hydra only composes the configuration here; leave its own settings out.")
    if value is None:
        return
    if not value.strip():
        raise ConfigError(
            f"{override}: the value is empty, perhaps a variable of the shell; give one, or null for none."
        )
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        raise ConfigError(f"{override}: not understood; {_advice(key, value)}") from None
    if parsed.is_sweep_override() and not several:
        raise ConfigError(
            f"{override}: several values are for mythos sweep and mythos train -m; write {key}=[...] for a list, or "
            f"{_in_shell(key, value)} for a text."
        )


def _advice(key: str, value: str) -> str:
    if value.startswith("~"):
        return f"~ is not expanded here, so write {key}={os.path.expanduser(value)}."  # noqa: PTH111
    if value[0] in "[{(" or re.match(r"\w+\(", value):
        return f"close its brackets and quotes, or quote it as a text, {_in_shell(key, value)}."
    return f"a text with such characters is quoted, {_in_shell(key, value)}."


def _in_shell(key: str, text: str) -> str:
    """Return the override of a text as a word of a shell."""
    return shlex.quote(f"{key}=" + _in_quotes(text, '"'))


def _in_quotes(text: str, quote: str) -> str:
    """Quote a text for Hydra, where backslashes have a meaning only before a quote, and for OmegaConf, as in ${a}."""
    text = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", text)
    text = re.sub(rf"(\\*){quote}", lambda match: 2 * match[1] + rf"\{quote}", text)
    text = re.sub(r"\\+$", lambda match: 2 * match[0], text)
    return f"{quote}{text}{quote}"
