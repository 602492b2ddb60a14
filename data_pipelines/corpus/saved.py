"""Read the text of a folder that ``datasets.Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from data_pipelines.corpus.row_texts import RowText, read_row_texts
from data_pipelines.skips import SkipCounter
from mythos.config.base import ConfigError
from mythos.data.text import encodable, printable_name

_STATE: Final = "state.json"
_INFO: Final = "dataset_info.json"
_SPLITS: Final = "dataset_dict.json"
_TRAIN: Final = "train"


def is_saved(directory: Path) -> bool:
    """Whether ``datasets`` wrote this folder."""
    return (directory / _SPLITS).is_file() or all((directory / name).is_file() for name in (_STATE, _INFO))


def read_saved(directory: Path, column: str, skips: SkipCounter) -> Iterator[RowText]:
    """Yield the texts of a saved data set in its order; of several splits, those of ``train``, or of the only one.

    The files are read without ``datasets``, one block of rows at a time (1,000 rows, unless they were written
    otherwise). Other splits are counted in ``skips``.

    Raises:
        ConfigError: the folder or one of its files is damaged, there is no split ``train``, or no text in ``column``.
    """
    if (directory / _SPLITS).is_file():
        directory = directory / _split(directory, skips)
    state = _load(directory / _STATE)
    files = [entry.get("filename") for entry in state.get("_data_files") or [] if isinstance(entry, dict)]
    for name in files:
        if not isinstance(name, str) or Path(name).name != name or not (directory / name).is_file():
            raise ConfigError(
                f"{_printable(directory / _STATE)} lists {name!r}, which is no file there; save it again."
            )
        yield from read_row_texts(directory / name, printable_name(name), column, skips)


def _split(directory: Path, skips: SkipCounter) -> str:
    splits = [split for split in _load(directory / _SPLITS).get("splits") or [] if isinstance(split, str)]
    chosen = splits[0] if len(splits) == 1 else _TRAIN
    if chosen not in splits or Path(chosen).name != chosen:
        raise ConfigError(
            f"{_printable(directory)} has the splits {', '.join(map(encodable, splits)) or 'none'}, but no "
            f"{_TRAIN}; name the folder of one of them."
        )
    for split in splits:
        if split != chosen:
            skips.skip(f"a split other than {chosen}", encodable(split))
    return chosen


def _load(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{_printable(path)}: no such file; save the data set again.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{_printable(path)} is damaged ({error}); save the data set again.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{_printable(path)} is not a JSON object; save the data set again.")
    return value


def _printable(path: Path) -> str:
    return printable_name(str(path))
