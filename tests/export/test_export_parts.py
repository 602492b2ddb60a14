"""Exported models with parts of another package import that package."""

import inspect
import sys

import pytest
import torch
from attention_parts import ENTRIES, PACKAGE
from helpers import relative_error

from mythos.config.loop_parts.film import FilmConfig
from mythos.config.parts import ForeignPart, LoopConfig


@pytest.mark.parametrize("name", ["debug", "debug-mla"])
def test_attention_parts_of_another_package_are_imported_by_the_exported_file(name: str, install, exported) -> None:
    install(*PACKAGE, loop_parts=ENTRIES)
    parts = (FilmConfig(), ForeignPart(name="residual"), ForeignPart(name="past"))
    model, loaded = exported(name, loop=LoopConfig(parts=parts))
    source = inspect.getsource(sys.modules[type(loaded).__module__])
    assert "from attention_parts_package import NoOptions, Outside, OwnPast, ValueResidual\n" in source
    tokens_BS = torch.randint(512, (3, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for num_loops in (1, 4):
            expected = model.decode(tokens_BS, model.new_cache(num_loops, 12))
            assert relative_error(loaded(tokens_BS, num_loops=num_loops).logits, expected) < 1e-5
