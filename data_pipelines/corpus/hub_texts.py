"""Stream the text of a data set on the Hugging Face Hub."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_pipelines.corpus.config import HubSource
from data_pipelines.corpus.row_texts import RowText, texts_of
from data_pipelines.skips import SkipCounter
from mythos.config.base import ConfigError

_NAME: Final = re.compile(
    r"(?P<path>(?P<owner>\w[\w.-]*)/\w[\w.-]*)(?::(?P<name>\w[\w.-]*))?(?:@(?P<revision>\w[\w./-]*))?", re.ASCII
)


def hub_source(path: Path, column: str) -> HubSource | None:
    """Return the data set that ``OWNER/NAME[:CONFIGURATION][@REVISION]`` names; None if the path is a local one.

    A path that exists is local, and so is a missing one below a folder that exists.
    """
    match = _NAME.fullmatch(str(path))
    if match is None or path.exists() or Path(match["owner"]).exists():
        return None
    return HubSource(path=match["path"], name=match["name"], revision=match["revision"], licence="", text_column=column)


def read_hub_texts(source: HubSource, skips: SkipCounter) -> Iterator[RowText]:
    """Yield the texts of the split ``train`` in order, streamed file by file; each reading downloads them again.

    Damaged files, and rows that cannot be read, are counted in ``skips``.

    Raises:
        ConfigError: the data set cannot be opened, the connection is lost, or a file has no text in the column.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils.logging import set_verbosity_error

    from data_pipelines.corpus.hub import count_files, read_hub_file

    set_verbosity_error()  # the errors name what the library would log at each attempt
    try:
        num_files = count_files(source)
    except ConfigError as error:
        raise ConfigError(f"there is no file or folder {source.path} here, and on the Hub, {error}") from None
    try:
        for index in range(num_files):
            rows = read_hub_file(source, index, skips, text_column_only=True)
            yield from texts_of(rows, source.path, source.text_column, skips)
    except (OSError, HfHubHTTPError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"{source.path}: reading from the Hub failed in file {index + 1} of {num_files} ({reason}); check the "
            "network and run the same command again."
        ) from None
