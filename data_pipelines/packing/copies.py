"""Find held-out texts that are also in the training part."""

import hashlib
from array import array
from typing import Final

import numpy as np

_CHUNK_NUM_CHARS: Final = 2**20


class Copies:
    """Counts held-out texts that are equal to a training text, blanks aside; holds 8 bytes for each document."""

    def __init__(self) -> None:
        self._train = array("Q")
        self._held_out = array("Q")
        self._ids: list[str] = []

    def add(self, id: str, text: str, *, is_held_out: bool) -> None:
        """Note one document."""
        (self._held_out if is_held_out else self._train).append(_digest(text))
        if is_held_out:
            self._ids.append(id)

    def ids(self) -> list[str]:
        """Ids of the held-out documents whose text is in the training part."""
        if not self._train or not self._held_out:
            return []
        train, held_out = (np.frombuffer(digests, np.uint64) for digests in (self._train, self._held_out))
        return [self._ids[index] for index in np.flatnonzero(np.isin(held_out, train))]

    def sentences(self) -> list[str]:
        """One sentence with the number and the first of these documents, or none."""
        if not (ids := self.ids()):
            return []
        return [
            f"{len(ids):,} of {len(self._ids):,} held-out texts are also in the training part, the first of them "
            f"{ids[0]}; the validation loss will be too low, so remove copies first, as mythos-data clean does."
        ]


def _digest(text: str) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for start in range(0, len(text), _CHUNK_NUM_CHARS):
        digest.update("".join(text[start : start + _CHUNK_NUM_CHARS].split()).encode())
    return int.from_bytes(digest.digest(), "little")
