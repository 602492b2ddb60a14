"""Refuse credentials in a configuration, which is written to config.json, checkpoints, trackers and submissions."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from mythos.config.base import ConfigError, flatten

CREDENTIAL: Final = re.compile(
    r"(api.?key|access.?key|secret|passw(or)?d|auth.?token|credential|bearer)['\"]?\s*[:=]|://[^/\s:@]+:[^/\s@]+@"
    r"|\b(sk-|hf_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA|AIza|wandb_v1_)\w{8,}|PRIVATE KEY|\b[0-9a-f]{40}\b",
    re.IGNORECASE,
)
"""Matches a line of code that holds a credential; wide, because a line that is withheld by mistake costs little."""
_IN_VALUE: Final = {
    "an address with a password or token": re.compile(r"://[^/?#\s]*:[^/?#\s]*@|\bhttps?://[^/?#\s]*@"),
    "an address that is signed": re.compile(
        r"[?&](x-amz-(signature|credential|security-token)|sig|signature|(access_?|auth_?)?token|api_?key|password)=",
        re.I,
    ),
    "a token": re.compile(r"\b(hf_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|wandb_v1_|AKIA|AIza)[A-Za-z0-9]{16,}"),
}
"""Narrow, because these are refused; tokens are those of Hugging Face, GitHub, GitLab, Slack, W&B, AWS and Google."""
_SECRET_VARIABLE: Final = re.compile(r"(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD)$")
_MIN_CHARACTERS: Final = 16
"""Shorter values of variables may be ordinary words."""


def check_secrets(raw: dict[Any, Any], environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a composed configuration that holds a credential.

    Raises:
        ConfigError: with the dotted path and never the value.
    """
    _refuse(_texts(flatten(raw)), environment)


def check_overrides(overrides: Iterable[str], environment: Mapping[str, str] = os.environ) -> None:
    """Refuse overrides that hold a credential, though a later one may replace the value: all of them are recorded.

    Raises:
        ConfigError: with the dotted path and never the value.
    """
    pairs = (override.partition("=") for override in overrides)
    _refuse(((path.lstrip("+~"), value) for path, _, value in pairs), environment)


def _refuse(texts: Iterable[tuple[str, str]], environment: Mapping[str, str]) -> None:
    for path, text in texts:
        held = next((name for name, pattern in _IN_VALUE.items() if pattern.search(text)), None)
        held = held or next(
            (f"the value of {name}" for name in _secrets(environment) if environment[name] in text), None
        )
        if held is not None:
            raise ConfigError(
                f"{path}: holds {held}, which would be written into config.json and sent to trackers; leave it out and "
                "let the library read it from its environment variable or its own file."
            )


def _secrets(environment: Mapping[str, str]) -> list[str]:
    return [
        name for name, value in environment.items() if _SECRET_VARIABLE.search(name) and len(value) >= _MIN_CHARACTERS
    ]


def _texts(flat: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every text of flattened values, including those in lists, with its dotted path."""
    for path, value in flat.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                yield path, one
            elif isinstance(one, dict):
                yield from _texts(flatten(one, path))
