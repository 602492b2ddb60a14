import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MODELS, fill, model_config, random_batch, random_model

from mythos.config.halting import ActHalting, PonderHalting
from mythos.config.loop_parts.attention import CrossLoopAttentionConfig, ValueResidualConfig
from mythos.config.loop_parts.memory_tokens import MemoryTokensConfig
from mythos.config.parts import LoopConfig
from mythos.eval.attention_pattern import heads_of, pattern
from mythos.eval.trace import trace
from mythos.layers.mask import dense_mask
from mythos.layers.rope import rotation_at
from mythos.model.mythos import Mythos
from mythos.report.trace_arrays import TokenTrace, write_arrays
from mythos.types import Batch

TOKENS = [0, 17, 4, 400, 17, 17, 90, 3, 255, 8, 61]


def traced(model: Mythos, num_loops: int = 4, layers=(0, 1), heads=(0, 1)) -> TokenTrace:
    return trace(model.eval(), TOKENS, num_loops, layers, heads, text_of=str)


def batch() -> Batch:
    """The same text as a micro-batch with an explicit mask."""
    tokens = torch.tensor([TOKENS])
    return Batch(
        tokens_BS=tokens,
        targets_BS=torch.cat((tokens[:, 1:], torch.tensor([[-1]])), dim=1),
        positions_BS=torch.arange(len(TOKENS))[None],
        document_ids_BS=torch.zeros_like(tokens),
        sample_ids_B=torch.tensor([0]),
        num_targets=torch.tensor(10.0),
        num_sequences=torch.tensor(1.0),
    )


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_grouped_pattern_times_values_is_the_output_of_the_layer(num_kv_heads: int) -> None:
    attention = {"attention": model_config().attention.__class__(num_heads=4, num_kv_heads=num_kv_heads)}
    check_own_output(random_model(model_config(**attention)))


@pytest.mark.parametrize("query_rank", [None, 16])
def test_latent_pattern_times_values_is_the_output_of_the_layer(query_rank: int | None) -> None:
    config = model_config("debug-mla")
    mla = config.attention.__class__(
        num_heads=2, query_rank=query_rank, kv_rank=16, nope_head_dim=8, rope_head_dim=4, value_head_dim=12
    )
    check_own_output(random_model(model_config("debug-mla", attention=mla)))


@torch.no_grad()
def check_own_output(model: Mythos) -> None:
    """Compare with and without documents, in double precision, so that only a wrong formula can differ."""
    documents = random_batch(model.config, batch=2, length=13, num_documents=3)
    attention = model.core.blocks[1].attention.double()
    x_BSD = torch.randn(2, 13, model.config.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    width = getattr(model.config.attention, "rope_head_dim", model.config.head_dim)
    rotation = rotation_at(documents.positions_BS, width, model.config.attention.rope_base)
    for mask in (None, dense_mask(documents.document_ids_BS)):
        heads = heads_of(attention, x_BSD, rotation)
        pattern_BHSS = pattern(heads, mask)
        mixed_BHSP = pattern_BHSS.double() @ heads.value_BHSP
        output_BSD = attention.o_proj(mixed_BHSP.transpose(1, 2).flatten(2))
        torch.testing.assert_close(output_BSD, attention(x_BSD, rotation, mask)[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(pattern_BHSS.sum(-1), torch.ones(2, model.config.attention.num_heads, 13))
        assert (pattern_BHSS.triu(1) == 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_predictions_equal_those_of_the_model_after_every_loop(name: str) -> None:
    model = random_model(model_config(name)).eval()
    result = traced(model)
    prediction_TBS, _ = model.predict(batch(), 4)
    assert (result.top_token_TSR[..., 0] == prediction_TBS[:, 0].numpy()).all()
    with torch.no_grad():
        output = model(batch(), 4, exits=(0, 1, 2, 3), trace=True)
    np.testing.assert_allclose(-np.log(result.next_prob_TS[:, :-1]), output.nll_XBS[:, 0, :-1], rtol=1e-4, atol=1e-5)
    assert np.isnan(result.next_prob_TS[:, -1]).all()
    np.testing.assert_allclose(result.state_norm_TS.mean(1), output.trace.state_norm_T, rtol=1e-5)
    np.testing.assert_allclose(result.relative_change_TS.mean(1), output.trace.relative_change_T, rtol=1e-5)


def test_probabilities_are_sorted_and_entropy_is_that_of_the_whole_distribution() -> None:
    model = random_model(model_config()).eval()
    result = traced(model, num_loops=1)
    cache = model.new_cache(1, len(TOKENS))
    prob_SV = model.decode(torch.tensor([TOKENS]), cache)[0].double().softmax(-1)
    assert (np.diff(result.top_prob_TSR, axis=-1) <= 0).all()
    np.testing.assert_allclose(result.top_prob_TSR[0], prob_SV.sort(descending=True).values[:, :5], rtol=1e-4)
    np.testing.assert_allclose(result.entropy_TS[0], -(prob_SV * prob_SV.log()).sum(-1), rtol=1e-4)


def test_expert_indices_match_the_counts_of_the_router() -> None:
    model = random_model(model_config()).eval()
    result = traced(model)
    with torch.no_grad():
        counts_TLE = model(batch(), 4).router_stats.counts_E
    assert result.expert_TLSK.shape == (4, 2, len(TOKENS), 2)
    for loop, layer in np.ndindex(4, 2):
        counts = np.bincount(result.expert_TLSK[loop, layer].ravel(), minlength=4)
        assert counts.tolist() == counts_TLE[loop, layer].tolist()
    assert traced(random_model(model_config("debug-dense"))).expert_TLSK is None


@pytest.mark.parametrize("halting", [PonderHalting(), ActHalting()])
def test_halting_equals_that_of_the_model(halting: PonderHalting | ActHalting) -> None:
    model = Mythos(model_config(), halting).eval()
    fill(model)
    result = traced(model)
    prediction_TBS, halting_TBS = model.predict(batch(), 4)
    np.testing.assert_allclose(result.halting_TS, halting_TBS[:, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.halting_TS.sum(0), 1, rtol=1e-5)
    assert (result.top_token_TSR[..., 0] == prediction_TBS[:, 0].numpy()).all()
    assert traced(random_model(model_config())).halting_TS is None


def test_requested_layers_and_heads_equal_those_of_a_full_trace() -> None:
    model = random_model(model_config()).eval()
    whole, part = traced(model), traced(model, layers=(1,), heads=(1,))
    assert whole.attention_TCHSS.shape == (4, 2, 2, 11, 11)
    assert part.attention_TCHSS.shape == (4, 1, 1, 11, 11)
    np.testing.assert_array_equal(part.attention_TCHSS[:, 0, 0], whole.attention_TCHSS[:, 1, 1])
    assert (part.layer_C.tolist(), part.head_H.tolist()) == ([1], [1])
    assert traced(model, layers=()).attention_TCHSS.size == 0


def test_registers_are_no_tokens_of_a_trace() -> None:
    registers, cross = MemoryTokensConfig(num_tokens=5), CrossLoopAttentionConfig()
    alone = traced(random_model(model_config(loop=LoopConfig(parts=(registers,)))).eval())
    assert alone.further_attention_TCHSS is None
    assert alone.further_gate_CH is None
    both = traced(random_model(model_config(loop=LoopConfig(parts=(registers, cross)))).eval())
    assert both.further_attention_TCHSS.shape == both.attention_TCHSS.shape


def test_attention_changes_from_loop_to_loop_with_the_state() -> None:
    """The first token attends only to itself. Only a state that has converged would repeat its pattern."""
    result = traced(random_model(model_config()))
    assert (result.attention_TCHSS[..., 0, 0] == 1).all()
    difference = np.abs(np.diff(result.attention_TCHSS, axis=0)).max(axis=(1, 2, 3, 4))
    assert (difference > 1e-3).all()


@pytest.mark.parametrize("name", ["debug-dense", "debug-mla"])
def test_both_attentions_of_every_loop_give_the_output_of_the_layer(name: str) -> None:
    """Own weights times own values, plus gate times further weights times the values of the loop before."""
    parts = (CrossLoopAttentionConfig(), ValueResidualConfig())
    model = random_model(model_config(name, loop=LoopConfig(parts=parts))).eval()
    calls: list[list[tuple[torch.Tensor, ...]]] = [[], []]
    for layer, block in enumerate(model.core.blocks):
        block.attention.o_proj.register_forward_hook(
            lambda module, given, output, layer=layer: calls[layer].append(given[0])
        )
        block.attention.register_forward_hook(
            lambda module, given, output, layer=layer: calls[layer].append((given[0], given[4]))
        )
    result = traced(model)
    gate_CH = np.stack([block.attention.part.parts[0].gate.weight.detach().tanh() for block in model.core.blocks])
    np.testing.assert_allclose(result.further_gate_CH, gate_CH, rtol=1e-6)
    assert not result.further_attention_TCHSS[0].any()
    np.testing.assert_allclose(result.further_attention_TCHSS[1:].sum(-1), 1, rtol=1e-5)
    rotation = rotation_at(torch.arange(len(TOKENS))[None], *rotation_of(model))
    with torch.no_grad():
        for layer, block in enumerate(model.core.blocks):
            before = None
            for loop in range(4):
                mixed_BSE, (x_BSD, inputs) = calls[layer][2 * loop : 2 * loop + 2]
                heads = heads_of(block.attention, x_BSD, rotation, inputs)
                own, further = (
                    torch.from_numpy(each[loop, layer])
                    for each in (result.attention_TCHSS, result.further_attention_TCHSS)
                )
                expected_HSP = own @ heads.value_BHSP[0]
                if before is not None:
                    expected_HSP += torch.from_numpy(gate_CH[layer])[:, None, None] * (further @ before.value_BHSP[0])
                np.testing.assert_allclose(mixed_BSE[0], expected_HSP.transpose(0, 1).flatten(1), rtol=1e-3, atol=1e-5)
                before = heads


def rotation_of(model: Mythos) -> tuple[int, float]:
    attention = model.config.attention
    return getattr(attention, "rope_head_dim", model.config.head_dim), attention.rope_base


def test_a_trace_leaves_no_hooks() -> None:
    model = random_model(model_config()).eval()
    traced(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_arrays_survive_a_round_trip_through_the_file(tmp_path: Path) -> None:
    cross = LoopConfig(parts=(CrossLoopAttentionConfig(),))
    for config in (model_config("debug"), model_config("debug-dense"), model_config("debug", loop=cross)):
        result = traced(random_model(config))
        write_arrays(tmp_path / "trace.npz", result)
        with np.load(tmp_path / "trace.npz") as arrays:
            assert set(arrays) == {name for name, part in result._asdict().items() if part is not None}
            for name in arrays:
                np.testing.assert_array_equal(getattr(result, name), arrays[name])
    assert set(result.word_id_W) == {*TOKENS, *result.top_token_TSR.ravel()}
    assert result.word_W.tolist() == [str(word_id) for word_id in result.word_id_W]
    assert math.isclose(result.attention_TCHSS.sum(), 4 * 2 * 2 * 11, rel_tol=1e-5)
