"""Exported models with loop parts decode as the model; parts of another package are imported from there."""

import inspect
import sys

import pytest
import torch
from attention_parts import ENTRIES, PACKAGE
from helpers import relative_error

from mythos.config.decoding import ExitRule
from mythos.config.loop_parts.film import FilmConfig
from mythos.config.parts import PARTS, ForeignPart, LoopConfig


@pytest.mark.parametrize("name", ["debug", "debug-mla"])
def test_a_model_with_every_kind_of_part_decodes_as_before_its_export(name: str, exported) -> None:
    model, loaded = exported(name, loop=LoopConfig(parts=tuple(spec.config() for spec in PARTS.values())))
    tokens_BS = torch.randint(512, (3, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for num_loops in (1, 6):
            expected = model.decode(tokens_BS, model.new_cache(num_loops, 12))
            assert relative_error(loaded(tokens_BS, num_loops=num_loops).logits, expected) < 1e-5
        cache, rule = model.new_cache(6, None), ExitRule("relative_change", 0.4)
        options = {"num_loops": 6, "exit_rule": rule.kind, "exit_threshold": rule.threshold}
        first = loaded(tokens_BS[:, :8], use_cache=True, **options)
        expected = model.decode_until(tokens_BS[:, :8], cache, rule)
        assert torch.equal(first.num_loops, expected.num_loops_BS)
        rest = loaded(tokens_BS[:, 8:], past_key_values=first.past_key_values)
        assert relative_error(rest.logits, model.decode_until(tokens_BS[:, 8:], cache, None).logits_BSV) < 1e-5


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
