"""Load an exported folder into the package's own model, without ``transformers`` and without its code."""

from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from mythos.checkpoint.tensor_file import read_header, read_range
from mythos.config.base import ConfigError, config, decode
from mythos.config.halting import HaltingConfig
from mythos.config.model import ModelConfig
from mythos.config.parts import check_parts
from mythos.data.tokenizer import read_tokenizer
from mythos.model.mythos import Mythos

MODEL_TYPE: Final = "mythos"
"""``model_type`` in the ``config.json`` of an export."""
_PREFIX: Final = "model."


@config
class _Architecture:
    """What ``config.json`` holds about the model."""

    architecture: ModelConfig
    halting: HaltingConfig
    num_loops: int


def load_export(folder: Path, raw: dict[str, Any]) -> tuple[Mythos, Tokenizer, int]:
    """Return the model with fp32 weights on the CPU, its tokenizer and its default number of loops.

    Args:
        raw: contents of the folder's ``config.json``.

    Raises:
        ConfigError: a file is missing or damaged, or the weights are those of another model.
    """
    try:
        fields = {name: raw[name] for name in ("architecture", "halting", "num_loops")}
        described = decode(_Architecture, fields)
    except (KeyError, ConfigError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"{folder / 'config.json'} is damaged ({reason}); export the run again.") from None
    check_parts(described.architecture)
    model = Mythos(described.architecture, described.halting)
    _load_weights(model, folder / "model.safetensors")
    return model, read_tokenizer(folder / "tokenizer.json"), described.num_loops


def _load_weights(model: Mythos, path: Path) -> None:
    entries = read_header(path).entries
    tensors = {f"{_PREFIX}{name}": tensor for name, tensor in model.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wrong := sorted(shapes.items() ^ {name: entry.shape for name, entry in entries.items()}.items()):
        raise ConfigError(
            f"{path}: {wrong[0][0]} of shape {list(wrong[0][1])} is only in one of the file and the model that "
            "config.json describes; export the run again."
        )
    for name, tensor in tensors.items():
        value_N = torch.empty(tensor.numel(), dtype=entries[name].dtype)
        read_range(path, entries[name], 0, value_N)
        tensor.copy_(value_N.view_as(tensor))
