"""Decoding: padding, early exits, and caches that loops share."""

from typing import Any

import pytest
import torch
from helpers import MODELS, fill, model_config, relative_error
from torch import Tensor

from mythos.config.decoding import EXIT_KINDS, ExitRule, num_cache_slots
from mythos.config.halting import ActHalting, FixedHalting, HaltingConfig, PonderHalting
from mythos.layers.cache import DecodeCache
from mythos.model.generate import generate, sample
from mythos.model.mythos import Decoded, Mythos

HALTING = [FixedHalting(), ActHalting(threshold=0.2), PonderHalting()]
TOKENS = torch.randint(512, (3, 11), generator=torch.Generator().manual_seed(1))


def filled(name: str = "debug", halting: HaltingConfig | None = None, **changes: Any) -> Mythos:
    model = Mythos(model_config(name, **changes), halting)
    fill(model)
    return model.eval()


@torch.no_grad()
def decoded(
    model: Mythos, cuts: tuple[int, ...], num_loops: int = 4, rule: ExitRule | None = None, policy: str = "all"
) -> tuple[Decoded, DecodeCache]:
    cache = model.new_cache(num_loops, None, policy)
    parts = [model.decode_until(piece, cache, rule) for piece in TOKENS.split(cuts, dim=1)]
    return Decoded(*(torch.cat(part, 1) for part in zip(*parts, strict=True))), cache


def never(kind: str) -> ExitRule:
    return ExitRule(kind, {"quantile": 1.0, "stable_argmax": 99}.get(kind, 1e-30))


@pytest.mark.parametrize("policy", ["all", "mean", "mod-3"])
@pytest.mark.parametrize(
    ("kind", "halting"),
    [(kind, halting) for kind in EXIT_KINDS for halting in HALTING if kind != "quantile" or halting.kind == "ponder"],
    ids=lambda one: one if isinstance(one, str) else one.kind,
)
def test_a_rule_that_never_fires_changes_nothing_bitwise(kind: str, halting: HaltingConfig, policy: str) -> None:
    model = filled(halting=halting)
    full, _ = decoded(model, (6, 1, 3, 1), policy=policy)
    result, _ = decoded(model, (6, 1, 3, 1), rule=never(kind), policy=policy)
    assert (result.num_loops_BS == 4).all()
    assert torch.equal(result.logits_BSV, full.logits_BSV)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("halting", HALTING, ids=lambda halting: halting.kind)
def test_exits_are_the_same_whether_tokens_are_decoded_together_or_one_by_one(
    name: str, halting: HaltingConfig
) -> None:
    model = filled(name, halting)
    rule = ExitRule("relative_change", 0.5) if halting.kind == "fixed" else ExitRule("quantile", 0.3)
    together, _ = decoded(model, (11,), num_loops=6, rule=rule)
    assert together.num_loops_BS.unique().numel() > 1
    for cuts in ((1,) * 11, (4, 1, 5, 1)):
        result, _ = decoded(model, cuts, num_loops=6, rule=rule)
        assert torch.equal(result.num_loops_BS, together.num_loops_BS)
        assert relative_error(result.logits_BSV, together.logits_BSV) < 1e-5


@pytest.mark.parametrize("halting", HALTING, ids=lambda halting: halting.kind)
def test_a_token_that_exits_has_the_logits_of_fewer_loops(halting: HaltingConfig) -> None:
    model = filled(halting=halting)
    result, _ = decoded(model, (11,), num_loops=6, rule=ExitRule("relative_change", 1e9))
    shallow, _ = decoded(model, (11,), num_loops=2)
    assert (result.num_loops_BS == 2).all()
    assert relative_error(result.logits_BSV, shallow.logits_BSV) < 1e-6


def test_cache_entries_of_loops_that_did_not_run_are_those_of_the_last_one() -> None:
    model = filled("debug-dense")
    _, cache = decoded(model, (11,), num_loops=6, rule=ExitRule("relative_change", 1e9))
    for layer in range(len(model.core.blocks)):
        key_TBSGP = torch.stack([slot[layer].parts[0][:, :11] for slot in cache.slots])
        assert not torch.equal(key_TBSGP[0], key_TBSGP[1])
        assert all(torch.equal(key_BSGP, key_TBSGP[1]) for key_BSGP in key_TBSGP[2:])


def keys(policy: str, rule: ExitRule | None, layer: int = 0) -> Tensor:
    """Cache of the first core layer, by slot, after one chunk has been decoded with six loops."""
    _, cache = decoded(filled("debug-dense"), (11,), num_loops=6, rule=rule, policy=policy)
    return torch.stack([slot[layer].parts[0][:, :11] for slot in cache.slots])


@pytest.mark.parametrize("rule", [None, ExitRule("relative_change", 0.5), ExitRule("relative_change", 1e9)])
def test_shared_slots_hold_what_their_policy_specifies(rule: ExitRule | None) -> None:
    each_TBSGP = keys("all", rule)
    assert torch.equal(keys("last", rule)[0], each_TBSGP[-1])
    assert relative_error(keys("mean", rule)[0], each_TBSGP.mean(0)) < 1e-6
    assert torch.equal(keys("mod-4", rule), each_TBSGP[[4, 5, 2, 3]])
    assert torch.equal(keys("mod-9", rule), each_TBSGP)


def test_a_policy_is_exact_within_a_chunk_and_an_approximation_after_it() -> None:
    model = filled()
    exact, _ = decoded(model, (11,))
    for policy in ("last", "mean", "mod-2", "mod-3"):
        assert torch.equal(decoded(model, (11,), policy=policy)[0].logits_BSV, exact.logits_BSV)
        later, _ = decoded(model, (8, 1, 1, 1), policy=policy)
        assert relative_error(later.logits_BSV[:, :8], exact.logits_BSV[:, :8]) < 1e-5
        assert relative_error(later.logits_BSV[:, 8:], exact.logits_BSV[:, 8:]) > 1e-4


@pytest.mark.parametrize("rule", [None, ExitRule("stable_argmax", 2), ExitRule("relative_change", 0.5)])
@pytest.mark.parametrize("policy", ["all", "mean", "mod-2"])
@pytest.mark.parametrize("name", MODELS)
def test_padding_on_the_left_changes_nothing(name: str, policy: str, rule: ExitRule | None) -> None:
    model = filled(name)
    lengths = (4, 7, 1)
    is_real_BS = torch.arange(7) >= 7 - torch.tensor(lengths)[:, None]
    together = generate(
        model, TOKENS[:, :7] * is_real_BS, 5, 4, 0, None, 0, rule=rule, cache_policy=policy, is_real_BS=is_real_BS
    )
    for row, length in enumerate(lengths):
        alone = generate(model, TOKENS[row : row + 1, 7 - length : 7], 5, 4, 0, None, 0, rule=rule, cache_policy=policy)
        assert torch.equal(together.tokens_BS[row], alone.tokens_BS[0])
        assert torch.equal(together.num_loops_BS[row], alone.num_loops_BS[0])


def test_a_reordered_cache_continues_as_its_rows_would() -> None:
    model, rows = filled(), torch.tensor([2, 0, 0])
    with torch.no_grad():
        cache, other = model.new_cache(3, None, "mean"), model.new_cache(3, None, "mean")
        is_real_BS = torch.arange(6) >= torch.tensor([0, 3, 1])[:, None]
        model.decode(TOKENS[:, :6], cache, is_real_BS)
        cache.reorder(rows)
        model.decode(TOKENS[rows, :6], other, is_real_BS[rows])
        assert relative_error(model.decode(TOKENS[:, 6:], cache), model.decode(TOKENS[:, 6:], other)) < 1e-5


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits_BV = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log().expand(300, -1)
    for top_p, kept in ((0.4, {1}), (0.6, {1, 3}), (0.8, {1, 2, 3}), (1.0, {0, 1, 2, 3})):
        drawn = sample(logits_BV, 1.0, None, torch.Generator().manual_seed(0), top_p)
        assert set(drawn.flatten().tolist()) == kept


@pytest.mark.parametrize("policy", ["first", "mod-0", "mod-", ""])
def test_an_unknown_policy_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match="cache_policy"):
        num_cache_slots(policy, 4)
