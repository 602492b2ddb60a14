"""Take the tokenizer of another model for packing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders

from data_pipelines.lock import locked
from data_pipelines.tokenizer.foreign import open_tokenizer
from mythos.config.base import ConfigError
from mythos.data.manifest import CHAT_TEMPLATE_FILE, TOKENIZER_FILE
from mythos.data.text import encodable
from mythos.data.tokenizer import separator_id_of
from mythos.files import write_text

_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")


def take_tokenizer(source: Path, directory: Path, separator: str, overwrite: bool) -> None:
    """Write the tokenizer of a Hugging Face folder or file, and its chat template, into a folder to be packed.

    The separator and the special tokens that the folder's settings name are declared as special tokens, which no text
    is encoded to.

    Raises:
        ConfigError: it is no tokenizer, it lacks the separator, or another tokenizer is in ``directory`` and
            ``overwrite`` is false.
    """
    path = source / TOKENIZER_FILE if source.is_dir() else source
    tokenizer = open_tokenizer(source)
    separator_id_of(tokenizer, path if path.exists() else source, separator)
    folder = source if source.is_dir() else source.parent
    settings = [_read(folder / name) for name in _SETTINGS]
    names = dict.fromkeys([separator, *(name for setting in settings for name in _special_names(setting))])
    is_changed = _declare(tokenizer, list(names))
    if path.name == TOKENIZER_FILE and path.exists() and not is_changed:
        content = path.read_text(encoding="utf-8")
    else:
        if not path.exists() or path.suffix != ".json":
            tokenizer.decoder = decoders.ByteLevel()  # the formats of GPT-2 and tiktoken
        content = tokenizer.to_str(pretty=True) + "\n"
    contents = {TOKENIZER_FILE: content, CHAT_TEMPLATE_FILE: _chat_template(folder, settings[0])}
    with locked(directory):
        for name, value in contents.items():
            target = directory / name
            present = target.read_text(encoding="utf-8") if target.exists() else None
            if present == value:
                continue
            if present is not None and not overwrite:
                raise ConfigError(f"{target} is another one than {source}'s; give --overwrite, or another --to.")
            if value is None:
                target.unlink()
            else:
                write_text(target, value)


def _declare(tokenizer: Tokenizer, names: list[str]) -> bool:
    """Declare entries of the vocabulary as special tokens, and return whether one was not."""
    declared = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    missing = [name for name in names if name not in declared and tokenizer.token_to_id(name) is not None]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in missing])
    return bool(missing)


def _special_names(settings: dict[str, Any]) -> Iterator[str]:
    """Names of the special tokens in one of the settings files."""
    for key, value in settings.items():
        if key.endswith("_token") or key == "additional_special_tokens":
            for entry in value if isinstance(value, list) else [value]:
                name = entry.get("content") if isinstance(entry, dict) else entry
                if isinstance(name, str) and name and name == encodable(name):
                    yield name


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """Chat template of a folder: its file, or the value in its settings."""
    if (folder / CHAT_TEMPLATE_FILE).is_file():
        return (folder / CHAT_TEMPLATE_FILE).read_text(encoding="utf-8")
    template = settings.get("chat_template")
    return encodable(template) if isinstance(template, str) else None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}); restore it.") from None
    return value if isinstance(value, dict) else {}
