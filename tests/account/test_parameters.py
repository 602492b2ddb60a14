"""Parameter counts, by hand for a tiny model and by difference for every variant."""

import pytest

from mythos.account.parameters import ParameterCounts, attention_shapes, count_parameters, num_elements

GQA = {"kind": "gqa", "num_heads": 2, "num_kv_heads": 1}
MOE = {"kind": "moe", "num_experts": 4, "num_active": 2, "hidden_dim": 8}
MLA = {
    "kind": "mla",
    "num_heads": 2,
    "kv_rank": 4,
    "nope_head_dim": 4,
    "rope_head_dim": 2,
    "value_head_dim": 3,
}


def test_every_part_of_a_mixture_of_experts(tiny_model):
    attention = 64 + 32 + 32 + 64 + 2 * 4
    dense_block = attention + 3 * 8 * 12 + 2 * 8
    core_block = attention + 4 * 8 + 4 * 3 * 64 + 3 * 64 + 2 * 8
    counts = count_parameters(tiny_model())
    assert counts == ParameterCounts(
        embedding=16 * 8,
        prelude=dense_block + 8,
        core=2 * core_block,
        parts=8 + 8 + 64,
        coda=dense_block,
        head=8,
    )
    assert counts.total == 3648


def test_active_parameters_exclude_the_experts_to_which_a_token_is_not_routed(tiny_model):
    model = tiny_model()
    inactive_experts = 2 * (4 - 2) * 3 * 64
    assert count_parameters(model, active=True).total == count_parameters(model).total - inactive_experts


def test_all_parameters_of_a_dense_core_are_active(tiny_model):
    model = tiny_model(core_ffn={"kind": "dense", "hidden_dim": 20})
    assert count_parameters(model).core == 2 * (200 + 16 + 3 * 8 * 20)
    assert count_parameters(model, active=True) == count_parameters(model)


@pytest.mark.parametrize(("query_rank", "expected"), [(None, 96), (6, 8 * 6 + 6 * 12)])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_latent_attention(tiny_model, query_rank, expected, qk_norm):
    model = tiny_model(attention=MLA | {"query_rank": query_rank, "qk_norm": qk_norm})
    latent_norms = (4 + (query_rank or 0)) * qk_norm
    others = 8 * 4 + 8 * 2 + 2 * (4 + 3) * 4 + 2 * 3 * 8
    assert num_elements(attention_shapes(model)) == expected + others + latent_norms


@pytest.mark.parametrize(
    ("changes", "part", "added"),
    [
        ({"injection": {"kind": "linear"}}, "parts", 2 * 64 - 80),
        ({"injection": {"kind": "additive"}}, "parts", -80),
        ({"injection": {"kind": "diagonal", "update_rule": "parallel"}}, "core", 8),
        ({"prelude_norm": False}, "prelude", -8),
        ({"norm_position": "sandwich"}, "core", 2 * 2 * 8),
        ({"head": {"tied": False}}, "head", 16 * 8),
        ({"num_prelude_layers": 0}, "prelude", -504),
        ({"num_coda_layers": 3}, "coda", 2 * 504),
        ({"attention": GQA | {"qk_norm": False}}, "core", -16),
        ({"attention": GQA | {"num_kv_heads": 2}}, "core", 2 * 64),
        ({"attention": GQA | {"head_dim": 6}}, "core", 2 * 100),
        ({"core_ffn": MOE | {"num_shared": 0}}, "core", -2 * 192),
        ({"core_ffn": MOE | {"num_shared": 2}}, "core", 2 * 192),
    ],
)
def test_a_variant_adds_parameters_to_its_part(tiny_model, changes, part, added):
    before, after = count_parameters(tiny_model()), count_parameters(tiny_model(**changes))
    assert getattr(after, part) - getattr(before, part) == added
