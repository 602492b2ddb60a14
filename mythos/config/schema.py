"""Check the schema of the files of a run: a file of another schema is refused with one sentence."""

from typing import Any, Final

from mythos.config.base import ConfigError, decode, encode
from mythos.config.records import SCHEMA
from mythos.config.run import RunConfig

_ADVICE: Final = "use the version of mythos that wrote it, or start a new run"


class OtherSchema(ConfigError):
    """A file was written by a version of mythos whose files have another schema."""


def check_schema(label: str, schema: Any, advice: str = _ADVICE) -> None:
    """Check the schema that a file states.

    Args:
        label: name of the file in messages.
        schema: the stated number; None if the file states none.

    Raises:
        OtherSchema: it is not ``records.SCHEMA``.
    """
    if schema != SCHEMA:
        written = "without a schema" if schema is None else f"by schema {schema}"
        raise OtherSchema(f"{label}: written {written}, but this version of mythos reads schema {SCHEMA}; {advice}.")


def encode_run(config: RunConfig) -> dict[str, Any]:
    """Return the contents of ``config.json``."""
    return {"schema": SCHEMA, **encode(config)}


def decode_run(raw: Any, label: str) -> RunConfig:
    """Build a configuration from the contents of ``config.json``.

    Args:
        label: name of the file in messages.

    Raises:
        OtherSchema: the file has another schema.
        ConfigError: one line per mistake, each beginning with the dotted path.
    """
    fields = dict(raw) if isinstance(raw, dict) else {}
    check_schema(label, fields.pop("schema", None))
    return decode(RunConfig, fields)
