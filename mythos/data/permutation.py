"""Compute a shuffled order of any number of items without storing it."""

import hashlib
import math

import numpy as np

_NUM_ROUNDS = 8


def permute(index_N: np.ndarray, size: int, seed: int, epoch: int, source: int = 0) -> np.ndarray:
    """Map indices through the permutation of ``range(size)`` that (seed, epoch, source) selects.

    A Feistel network over pairs (a, b) with a * b >= size is iterated until the result is inside the range (cycle
    walking; Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). a * b is so close to ``size`` that less
    than one index in sqrt(size) is iterated more than once.

    Args:
        index_N: integers in [0, size).

    Returns:
        int64, the shape of ``index_N``.
    """
    assert size >= 1
    num_left = math.isqrt(size - 1) + 1
    num_right = -(-size // num_left)
    keys = _round_keys(seed, epoch, source)
    result_N = _encipher(index_N.astype(np.uint64), num_left, num_right, keys)
    while (outside_N := result_N >= size).any():
        result_N[outside_N] = _encipher(result_N[outside_N], num_left, num_right, keys)
    return result_N.astype(np.int64)


def _round_keys(seed: int, epoch: int, source: int) -> np.ndarray:
    """One 64-bit key for each round; a hash, so that the keys of neighbouring seeds and epochs are unrelated."""
    name = f"window order {seed} {epoch}" + (f" {source}" if source else "")
    digest = hashlib.blake2b(name.encode(), digest_size=8 * _NUM_ROUNDS).digest()
    return np.frombuffer(digest, "<u8")


def _encipher(value_N: np.ndarray, num_left: int, num_right: int, keys: np.ndarray) -> np.ndarray:
    """Apply a bijection of ``range(num_left * num_right)``: alternately shift each half by a hash of the other."""
    left_N, right_N = np.divmod(value_N, np.uint64(num_right))
    for key_left, key_right in keys.reshape(-1, 2):
        left_N = (left_N + _mix(right_N + key_left) % np.uint64(num_left)) % np.uint64(num_left)
        right_N = (right_N + _mix(left_N + key_right) % np.uint64(num_right)) % np.uint64(num_right)
    return left_N * np.uint64(num_right) + right_N


def _mix(value_N: np.ndarray) -> np.ndarray:
    """Apply the finaliser of SplitMix64 (Steele, Lea and Flood 2014); each input bit affects all output bits."""
    value_N = (value_N ^ (value_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value_N = (value_N ^ (value_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value_N ^ (value_N >> np.uint64(31))
