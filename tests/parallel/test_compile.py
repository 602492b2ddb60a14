from functools import partialmethod

import pytest
import torch
from helpers import model_config, random_batch, random_model
from torch import nn
from torch._dynamo.utils import counters
from torch.utils._pytree import tree_leaves

from mythos.config.loop_parts.film_features import FilmFeaturesConfig
from mythos.config.parts import PARTS, LoopConfig
from mythos.parallel.compile import compile_parts

LOOPS = {"no part": LoopConfig()} | {kind: LoopConfig(parts=(spec.config(),)) for kind, spec in PARTS.items()}
LOOPS["fraction"] = LoopConfig(parts=(FilmFeaturesConfig(features="fraction"),))


@pytest.mark.parametrize("name", LOOPS)
def test_another_number_of_loops_compiles_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))  # guards, no kernels
    torch.compiler.reset()
    model = random_model(model_config("debug-dense", loop=LOOPS[name]))
    batch = random_batch(model.config)
    expected = {num_loops: model(batch, num_loops).nll_XBS for num_loops in (3, 1, 7, 5, 9)}
    compile_parts(model)
    graphs = {}
    for num_loops, nll_XBS in expected.items():
        output = model(batch, num_loops, min(2, num_loops))
        output.nll_XBS.mean().backward()
        torch.testing.assert_close(output.nll_XBS, nll_XBS, rtol=1e-5, atol=1e-6)
        graphs[num_loops] = counters["stats"]["unique_graphs"]
    assert graphs[3] >= len(model.prelude) + len(list(model.core.leaves()))
    # A carry has a gradient or not, before the first loop and after loops without gradients: all cases are seen by 7.
    has_carry = len(tree_leaves(model.core.start(*torch.zeros(2, 1, 1, model.config.dim)))) > 1
    seen = (7, 5, 9) if has_carry else (3, 1, 7, 5, 9)
    assert {graphs[num_loops] for num_loops in seen} == {graphs[seen[0]]}
    torch.compiler.reset()
