"""FLOPs of a token, by hand for a tiny model, and relations between them."""

import pytest

from mythos.account.flops import Flops, forward_flops, loop_flops, outer_flops, training_flops

SEQ_LEN = 10


def test_prelude_coda_and_head(tiny_model):
    block = 2 * (192 + 3 * 8 * 12)
    head = 2 * 16 * 8
    attention = SEQ_LEN * 2 * (4 + 4)
    assert outer_flops(tiny_model(), SEQ_LEN) == Flops(matrices=2 * block + head, attention=2 * attention)


def test_one_loop_counts_active_experts_router_and_injection(tiny_model):
    router, active, shared = 4 * 8, 2 * 3 * 64, 3 * 64
    blocks = 2 * 2 * (192 + router + active + shared)
    attention = 2 * SEQ_LEN * 2 * (4 + 4)
    assert loop_flops(tiny_model(), SEQ_LEN) == Flops(matrices=blocks + 2 * 64, attention=attention)


def test_latent_attention_counts_its_own_widths(tiny_model):
    attention = {"kind": "mla", "num_heads": 2, "kv_rank": 4, "nope_head_dim": 4, "rope_head_dim": 2}
    model = tiny_model(attention=attention | {"value_head_dim": 3})
    scores_and_values = SEQ_LEN * 2 * (4 + 2 + 3)
    assert loop_flops(model, SEQ_LEN).attention == 2 * scores_and_values


def test_forward_and_training_totals(tiny_model):
    model = tiny_model()
    assert forward_flops(model, SEQ_LEN, 3) == Flops(matrices=12_160, attention=1280)
    assert training_flops(model, SEQ_LEN, 3, 2) == Flops(matrices=29_824, attention=3200)
    assert training_flops(model, SEQ_LEN, 3, 2).total == 33_024


def test_training_with_all_gradients_costs_three_forwards(tiny_model):
    model = tiny_model()
    assert training_flops(model, SEQ_LEN, 5, 5) == forward_flops(model, SEQ_LEN, 5) * 3


def test_a_loop_without_gradients_costs_one_forward(tiny_model):
    model = tiny_model()
    added = training_flops(model, SEQ_LEN, 6, 2).total - training_flops(model, SEQ_LEN, 5, 2).total
    assert added == loop_flops(model, SEQ_LEN).total


def test_the_mean_loop_count_gives_the_mean_cost(tiny_model):
    model = tiny_model()
    draws = [(1, 1), (4, 3), (8, 3)]
    mean_cost = sum(training_flops(model, SEQ_LEN, *draw).total for draw in draws) / 3
    assert training_flops(model, SEQ_LEN, 13 / 3, 7 / 3).total == pytest.approx(mean_cost, rel=1e-12)


def test_only_attention_grows_with_the_sequence(tiny_model):
    model = tiny_model()
    short, long = forward_flops(model, SEQ_LEN, 2), forward_flops(model, 3 * SEQ_LEN, 2)
    assert (long.matrices, long.attention) == (short.matrices, 3 * short.attention)


def test_parts_without_matrices_cost_nothing(tiny_model):
    bare = tiny_model(injection={"kind": "additive"}, prelude_norm=False)
    normed = tiny_model(injection={"kind": "additive", "update_rule": "parallel"}, norm_position="sandwich")
    assert forward_flops(bare, SEQ_LEN, 2) == forward_flops(normed, SEQ_LEN, 2)


def test_tying_the_head_saves_no_flops(tiny_model):
    tied, untied = tiny_model(), tiny_model(head={"tied": False})
    assert forward_flops(tied, SEQ_LEN, 2) == forward_flops(untied, SEQ_LEN, 2)
