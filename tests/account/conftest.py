"""A model small enough to count by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from mythos.config.base import decode
from mythos.config.model import ModelConfig

TINY = {
    "vocab_size": 16,
    "dim": 8,
    "max_seq_len": 32,
    "num_prelude_layers": 1,
    "num_core_layers": 2,
    "num_coda_layers": 1,
    "attention": {"kind": "gqa", "num_heads": 2, "num_kv_heads": 1},
    "ffn": {"hidden_dim": 12},
    "core_ffn": {"kind": "moe", "num_experts": 4, "num_active": 2, "hidden_dim": 8, "num_shared": 1},
    "injection": {"kind": "diagonal"},
    "head": {"tied": True},
}


@pytest.fixture
def tiny_model() -> Callable[..., ModelConfig]:
    """Return a function that builds the tiny model with some top-level keys replaced."""

    def build(**changes: Any) -> ModelConfig:
        return decode(ModelConfig, TINY | changes)

    return build
