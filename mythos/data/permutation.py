"""A shuffled order of any number of items that is computed, not stored."""

import hashlib
import math

import numpy as np

_NUM_ROUNDS = 8


def permute(index_N: np.ndarray, size: int, seed: int, epoch: int, source: int = 0) -> np.ndarray:
    """Where each index lands in a permutation of ``range(size)`` that (seed, epoch, source) chooses.

    A Feistel network over pairs (a, b) with a * b >= size, walked until it is back inside the range
    (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). The pairs are so close to ``size`` that
    less than one index in sqrt(size) walks.

    Args:
        index_N: integers in [0, size).

    Returns:
        int64, the shape of ``index_N``.
    """
    assert size >= 1
    num_left = math.isqrt(size - 1) + 1
    num_right = -(-size // num_left)
    keys = _round_keys(seed, epoch, source)
    place_N = _encipher(index_N.astype(np.uint64), num_left, num_right, keys)
    while (outside_N := place_N >= size).any():
        place_N[outside_N] = _encipher(place_N[outside_N], num_left, num_right, keys)
    return place_N.astype(np.int64)


def _round_keys(seed: int, epoch: int, source: int) -> np.ndarray:
    """One 64-bit key for each round; a hash, so that neighbouring seeds and epochs share nothing."""
    name = f"window order {seed} {epoch}" + (f" {source}" if source else "")
    digest = hashlib.blake2b(name.encode(), digest_size=8 * _NUM_ROUNDS).digest()
    return np.frombuffer(digest, "<u8")


def _encipher(value_N: np.ndarray, num_left: int, num_right: int, keys: np.ndarray) -> np.ndarray:
    """A bijection of ``range(num_left * num_right)``: each half in turn is moved by a hash of the other."""
    left_N, right_N = np.divmod(value_N, np.uint64(num_right))
    for key_left, key_right in keys.reshape(-1, 2):
        left_N = (left_N + _mix(right_N + key_left) % np.uint64(num_left)) % np.uint64(num_left)
        right_N = (right_N + _mix(left_N + key_right) % np.uint64(num_right)) % np.uint64(num_right)
    return left_N * np.uint64(num_right) + right_N


def _mix(value_N: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): all input bits reach all output bits."""
    value_N = (value_N ^ (value_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value_N = (value_N ^ (value_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value_N ^ (value_N >> np.uint64(31))
