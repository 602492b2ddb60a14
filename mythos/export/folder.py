"""The folder that ``transformers`` loads: weights, configuration, code, tokenizer and model card of one checkpoint."""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from mythos.checkpoint import store
from mythos.checkpoint.fragments import FragmentReader
from mythos.checkpoint.manifest import FILE_NAME, Manifest, verify
from mythos.checkpoint.tensor_file import write_tensors
from mythos.config.base import ConfigError, decode, encode
from mythos.config.parts import parts_of
from mythos.config.run import RunConfig
from mythos.data.manifest import SEPARATOR
from mythos.data.tokenizer import tokenizer_of_run
from mythos.export.card import model_card
from mythos.export.inline import inlined
from mythos.export.part_classes import fp32_modules, written_for
from mythos.files import remove, rename_to_old, replacing

_CODE: Final = "modeling_mythos.py"
_HEADER: Final = (
    "A Mythos model for transformers, in one file.\n\nWritten by mythos export from the package's own modules; kernels "
    "and training are left out.\n"
)


class Exported(NamedTuple):
    """What was written."""

    checkpoint: Path
    num_parameters: int
    num_loops: int
    """Passes that the model runs unless told otherwise."""


def export(
    run: Path, target: Path, step: int | None, dtype: torch.dtype = torch.float32, replace: bool = False
) -> Exported:
    """Write a run's model into a new folder; memory never holds more than one tensor and its conversion.

    Args:
        step: of the checkpoint; None takes the newest sound one.
        dtype: of the weights.
        replace: an earlier export in ``target``, with all that lies beside it there.

    Raises:
        ConfigError: no such checkpoint, another tokenizer than the run's, or a folder that holds something.
    """
    _check_target(run, target, replace)
    checkpoint, manifest = find(run, step)
    config = decode(RunConfig, manifest.config)
    tokenizer, separator_id = tokenizer_of_run(config.data.directories, manifest.data_fingerprint)
    num_loops = max(1, round(config.depth.mean))
    reader = FragmentReader(checkpoint)
    try:
        with replacing(target) as folder:
            folder.mkdir()
            _write_weights(folder / "model.safetensors", reader, dtype, fp32_modules(parts_of(config.model)))
            described = _configuration(config, num_loops, separator_id, dtype)
            _write_json(folder / "config.json", described)
            ids = {"bos_token_id": separator_id, "eos_token_id": separator_id, "pad_token_id": separator_id}
            _write_json(folder / "generation_config.json", ids)
            _write_tokenizer(folder, tokenizer, separator_id, config.model.max_seq_len)
            code = Path(__file__).with_name("configuration.py").read_text(encoding="utf-8")
            (folder / "configuration_mythos.py").write_text(code, encoding="utf-8")
            code = inlined(("mythos.export.modeling", "MythosForCausalLM"), _HEADER, written_for(config.model))
            (folder / _CODE).write_text(code, encoding="utf-8")
            (folder / "README.md").write_text(model_card(run, manifest, config, num_loops), encoding="utf-8")
            earlier = rename_to_old(target) if replace else None
        if earlier is not None:
            remove(earlier)
    except OSError as error:
        raise ConfigError(
            f"--to {target}: it cannot be written ({error.strerror}); name a folder that can take it."
        ) from None
    num_parameters = sum(torch.Size(reader.shape(name)).numel() for name in _names(reader))
    return Exported(checkpoint, num_parameters, num_loops)


def find(run: Path, step: int | None) -> tuple[Path, Manifest]:
    """A run's checkpoint of a step, or its newest sound one.

    Raises:
        ConfigError: there is none, it was never finished, or it is damaged.
    """
    folder = run / store.FOLDER
    if step is None:
        found = store.newest(folder)
        if found is None:
            raise ConfigError(f"{run}: no checkpoint that verifies; train it first, or name a run's directory.")
        return found
    path = folder / f"step-{step:08d}"
    if not path.is_dir():
        finished = [found.name for found in store.checkpoints(folder) if (found / FILE_NAME).is_file()]
        known = ", ".join(str(int(name.removeprefix("step-"))) for name in finished) or "none"
        if folder.joinpath(f".{path.name}.tmp").is_dir():
            raise ConfigError(f"--step: the checkpoint of step {step} was never finished; finished steps: {known}.")
        raise ConfigError(f"--step: {run} holds no checkpoint of step {step}; finished steps: {known}.")
    return path, verify(path)


def _check_target(run: Path, target: Path, replace: bool) -> None:
    is_export = (target / _CODE).is_file()
    if target.exists() and (not target.is_dir() or any(target.iterdir())) and not (replace and is_export):
        raise ConfigError(f"--to {target}: something is there already; name a folder that is new or empty.")
    if target.resolve().is_relative_to((run / store.FOLDER).resolve()):
        raise ConfigError(f"--to {target}: lies among the run's checkpoints, which are not to change; choose another.")


def _names(reader: FragmentReader) -> list[str]:
    return [name for name in reader.names if "weight" in reader.fields(name)]


def _write_weights(path: Path, reader: FragmentReader, dtype: torch.dtype, in_fp32: list[str]) -> None:
    """All weights and buffers under their names in the exported class."""
    names = {f"model.{name}": name for name in _names(reader)}

    def stored(name: str) -> torch.dtype:
        if not reader.dtype(name).is_floating_point:
            return reader.dtype(name)
        return torch.float32 if any(part in name for part in in_fp32) else dtype

    def read(key: str) -> Tensor:
        return reader.tensor(names[key]).to(stored(names[key]))

    layout = {key: (stored(name), reader.shape(name)) for key, name in names.items()}
    write_tensors(path, layout, read, {"format": "pt"})


def _configuration(config: RunConfig, num_loops: int, separator_id: int, dtype: torch.dtype) -> dict[str, Any]:
    """``config.json``."""
    model = config.model
    return {
        "architectures": ["MythosForCausalLM"],
        "model_type": "mythos",
        "auto_map": {
            "AutoConfig": "configuration_mythos.MythosConfig",
            "AutoModelForCausalLM": "modeling_mythos.MythosForCausalLM",
        },
        "dtype": str(dtype).removeprefix("torch."),
        "vocab_size": model.vocab_size,
        "hidden_size": model.dim,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.attention.num_heads,
        "max_position_embeddings": model.max_seq_len,
        "bos_token_id": separator_id,
        "eos_token_id": separator_id,
        "pad_token_id": separator_id,
        "tie_word_embeddings": False,  # a tied head reads the embedding itself: there are no two weights to tie
        "num_loops": num_loops,
        "exit_rule": None,
        "exit_threshold": None,
        "cache_policy": "all",
        "architecture": encode(model),
        "halting": encode(config.halting),
    }


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, separator_id: int, max_seq_len: int) -> None:
    """The run's tokenizer, which now also opens each text as the data opened each document."""
    assert tokenizer.post_processor is None
    opened = {"single": f"{SEPARATOR} $A", "pair": f"{SEPARATOR} $A {SEPARATOR} $B"}
    tokenizer.post_processor = TemplateProcessing(**opened, special_tokens=[(SEPARATOR, separator_id)])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": SEPARATOR for name in ("bos", "eos", "pad")}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "padding_side": "left",
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", special)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
