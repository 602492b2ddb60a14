"""Which part of a corpus is held out."""

from data_pipelines.corpus.folder import Document
from mythos.config.base import ConfigError


def split_held_out(documents: list[Document], num_bytes: int) -> tuple[list[Document], list[Document]]:
    """Cut off the last ``num_bytes`` bytes of the documents' concatenation, as (training, held out).

    A document that the cut goes through gives a part to either side. The cut moves back to the start of a
    UTF-8 character, so up to three more bytes may be held out.

    Raises:
        ConfigError: nothing would be left on one side.
    """
    sizes = [len(document.text.encode()) for document in documents]
    if not 0 < num_bytes < sum(sizes):
        raise ConfigError(
            f"--held-out-bytes is {num_bytes}, but the text has {sum(sizes)} bytes; hold out at least 1 "
            "byte and leave some for training."
        )
    remaining = num_bytes
    training = list(documents)
    held_out: list[Document] = []
    while remaining > 0:
        document = training.pop()
        content = document.text.encode()
        cut = max(0, len(content) - remaining)
        remaining -= len(content)
        while cut and _is_continuation(content[cut]):
            cut -= 1
        held_out.insert(0, Document(document.name, content[cut:].decode()))
        if cut:
            training.append(Document(document.name, content[:cut].decode()))
    if not training:
        raise ConfigError(
            f"--held-out-bytes is {num_bytes}, and that is all {sum(sizes)} bytes once no character is cut; "
            "hold out less."
        )
    return training, held_out


def _is_continuation(byte: int) -> bool:
    """Whether a byte is inside a UTF-8 character and does not open one."""
    return byte & 0b1100_0000 == 0b1000_0000
