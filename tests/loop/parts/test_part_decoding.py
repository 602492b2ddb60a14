"""Decoding with a part of any kind: chunks of tokens have the logits and exits of all tokens together."""

from typing import Any

import pytest
import torch
from helpers import MODELS, random_batch, relative_error
from part_pairs import pair
from torch import Tensor

from mythos.config.decoding import ExitRule
from mythos.config.loop_parts.film_features import FilmFeaturesConfig
from mythos.config.parts import PARTS
from mythos.model.mythos import Decoded, Mythos

CASES: dict[str, Any] = {kind: spec.config() for kind, spec in PARTS.items()}
CASES["fraction"] = FilmFeaturesConfig(features="fraction")


@torch.no_grad()
def decoded(model: Mythos, tokens_BS: Tensor, cuts: tuple[int, ...], rule: ExitRule) -> Decoded:
    cache = model.new_cache(5, None)
    parts = [model.decode_until(piece, cache, rule) for piece in tokens_BS.split(cuts, dim=1)]
    return Decoded(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rule", [ExitRule("relative_change", 0.5), ExitRule("stable_argmax", 1)], ids=str)
def test_chunks_of_tokens_and_their_exits_are_those_of_all_tokens_together(
    case: str, name: str, rule: ExitRule
) -> None:
    model, _ = pair(CASES[case], name=name)
    tokens_BS = random_batch(model.config).tokens_BS
    together = decoded(model, tokens_BS, (13,), rule)
    result = decoded(model, tokens_BS, (5, 1, 4, 1, 2), rule)
    assert torch.equal(result.num_loops_BS, together.num_loops_BS)
    assert relative_error(result.logits_BSV, together.logits_BSV) < 1e-5
