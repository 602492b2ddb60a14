"""Parts inside attention: identity at the start, equations, and what decoding reads of earlier loops."""

from dataclasses import replace

import pytest
import torch
from helpers import (
    assert_same_with_gradients,
    fill,
    gradients,
    model_config,
    random_batch,
    random_model,
    relative_error,
)
from torch import Tensor, nn

from mythos.config.decoding import ExitRule
from mythos.config.loop_parts.attention import CrossLoopAttentionConfig, ValueResidualConfig
from mythos.config.model import GQAConfig, MLAConfig, ModelConfig
from mythos.config.parts import LoopConfig
from mythos.eval.attention_pattern import heads_of
from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.attention_part import Attend, AttentionPart, Carry, LayerInputs, gate_figures
from mythos.layers.mask import Mask, dense_mask
from mythos.layers.mla import LatentAttention
from mythos.layers.rope import Rotation, rotate, rotation_at
from mythos.loop.parts.cross_loop_attention import CrossLoopAttention
from mythos.loop.parts.value_residual import ValueResidual
from mythos.model.generate import generate
from mythos.model.init import initialize
from mythos.model.mythos import Mythos

NUM_LOOPS, LENGTH = 4, 11
CROSS, RESIDUAL = CrossLoopAttentionConfig(), ValueResidualConfig()
each_model = pytest.mark.parametrize("name", ["debug", "debug-dense", "debug-mla"])
each_attention = pytest.mark.parametrize("name", ["debug-dense", "debug-mla"])
each_config = pytest.mark.parametrize("part", [CROSS, RESIDUAL], ids=lambda part: part.kind)
GQA = GQAConfig(num_heads=4, num_kv_heads=2, head_dim=6)
MLA = MLAConfig(num_heads=3, kv_rank=7, nope_head_dim=5, rope_head_dim=4, value_head_dim=3)


def with_parts(name: str, *parts, **changes) -> Mythos:
    return random_model(model_config(name, loop=LoopConfig(parts=parts), **changes)).eval()


def without(model: Mythos) -> Mythos:
    bare = Mythos(replace(model.config, loop=LoopConfig()))
    bare.load_state_dict({key: value for key, value in model.state_dict().items() if ".attention.part." not in key})
    return bare.eval()


def trained(model: Mythos) -> tuple[Tensor, dict[str, Tensor]]:
    output = model(random_batch(model.config, num_documents=2), NUM_LOOPS, 3, exits=(2, 3), noise_seed=1)
    output.nll_XBS.mean().backward()
    return output.nll_XBS.detach(), gradients(model)


def parts_inside(model: Mythos) -> list[AttentionPart]:
    return [part for inside in model.core.attention_parts() for part in getattr(inside, "parts", ())]


@each_config
@each_model
def test_a_new_part_is_the_model_without_it_bitwise_and_learns(part, name: str) -> None:
    model, new = with_parts(name, part), with_parts(name, part)
    initialize(new, new.config, seed=3)
    own = {key: value for key, value in new.state_dict().items() if ".attention.part." in key}
    model.load_state_dict(model.state_dict() | own)
    (ours, our_gradients), (theirs, their_gradients) = trained(model), trained(without(model))
    assert torch.equal(ours, theirs)
    assert all(torch.equal(our_gradients[key], gradient) for key, gradient in their_gradients.items())
    assert all(our_gradients[key].any() for key in own)
    tokens_BS = random_batch(model.config).tokens_BS
    logits = [each.decode(tokens_BS, each.new_cache(NUM_LOOPS, None)) for each in (model, without(model))]
    assert torch.equal(*logits)
    assert all(value == 0 for value in gate_figures(each.gates().abs() for each in parts_inside(model)).values())


def layer_of(attention: GQAConfig | MLAConfig, build) -> tuple[nn.Module, ModelConfig, Rotation]:
    """A layer of odd sizes with a part, in double precision."""
    config = replace(model_config("debug-dense"), dim=20, attention=attention)
    layer = (
        GroupedQueryAttention(attention, config.dim, config.head_dim, 1e-6)
        if isinstance(attention, GQAConfig)
        else LatentAttention(attention, config.dim, 1e-6)
    )
    layer.part = build(CROSS if build is CrossLoopAttention else RESIDUAL, config)
    fill(layer)
    with torch.no_grad():
        for parameter in layer.part.parameters():
            parameter.copy_(torch.linspace(-0.9, 1.4, len(parameter)))
    width = attention.rope_head_dim if isinstance(attention, MLAConfig) else config.head_dim
    positions_BS = random_batch(config, batch=2, length=LENGTH, num_documents=3).positions_BS
    return layer.double(), config, rotation_at(positions_BS, width, 100.0)


def read(layer: nn.Module, query_BHSP: Tensor, memory: tuple[Tensor, ...], mask: Tensor) -> Tensor:
    """Attention over keys and values, or latents and rotated keys, by explicit weights; ``[B, S, H, P]``."""
    if isinstance(layer, GroupedQueryAttention):
        repeats = layer.num_heads // layer.num_kv_heads
        key, value = (each.repeat_interleave(repeats, dim=2) for each in memory)
    else:
        both = layer.kv_up(memory[0]).unflatten(-1, (layer.num_heads, -1))
        key, value = both.split((layer.nope_head_dim, layer.value_head_dim), dim=-1)
        key = torch.cat((key, memory[1].unsqueeze(2).expand(-1, -1, layer.num_heads, -1)), dim=-1)
    score = torch.einsum("bhqp,bkhp->bhqk", query_BHSP, key) * query_BHSP.shape[-1] ** -0.5
    return torch.einsum("bhqk,bkhp->bqhp", score.masked_fill(~mask, -torch.inf).softmax(-1), value)


def operands(config: ModelConfig) -> tuple[Tensor, list[Tensor], Tensor]:
    """A layer's input, a loop's keys and values before, and a mask of documents."""
    torch.manual_seed(4)
    batch = random_batch(config, batch=2, length=LENGTH, num_documents=3)
    x_BSD = torch.randn(2, LENGTH, config.dim, dtype=torch.float64, requires_grad=True)
    before = [torch.randn(2, LENGTH, *shape, dtype=torch.float64, requires_grad=True) for shape in config.cached_shapes]
    return x_BSD, before, dense_mask(batch.document_ids_BS)


@pytest.mark.parametrize("attention", [GQA, MLA], ids=["gqa", "mla"])
def test_cross_loop_attention_is_its_equation(attention: GQAConfig | MLAConfig) -> None:
    layer, config, rotation = layer_of(attention, CrossLoopAttention)
    x_BSD, before, mask = operands(config)
    found, carry = layer(x_BSD, rotation, mask, None, LayerInputs(carry=tuple(before)))
    heads = heads_of(layer, x_BSD, rotation)
    own_BSHP = torch.einsum("bhqk,bhkp->bqhp", pattern64(heads, mask), heads.value_BHSP)
    gate_H1 = layer.part.gate.weight.tanh()[:, None]
    mixed_BSHP = own_BSHP + gate_H1 * read(layer, heads.query_BHSP, tuple(before), mask)
    expected = layer.o_proj(mixed_BSHP.flatten(2))
    inputs = [x_BSD, *before, *layer.parameters()]
    assert_same_with_gradients(found, inputs, expected, inputs, torch.randn_like(found), 1e-6)
    assert [each.shape for each in carry] == [each.shape for each in before]
    again, _ = layer(x_BSD, rotation, mask, None, LayerInputs(carry=carry))  # its own keys and values
    twice = layer.o_proj(((1 + gate_H1) * own_BSHP).flatten(2))
    assert relative_error(again, twice) < 1e-6


def pattern64(heads, mask: Tensor) -> Tensor:
    score = heads.query_BHSP @ heads.key_BHSP.transpose(-1, -2) * heads.query_BHSP.shape[-1] ** -0.5
    return score.masked_fill(~mask, -torch.inf).softmax(-1)


@pytest.mark.parametrize("attention", [GQA, MLA], ids=["gqa", "mla"])
def test_value_residual_is_its_equation(attention: GQAConfig | MLAConfig) -> None:
    layer, config, rotation = layer_of(attention, ValueResidual)
    x_BSD, before, mask = operands(config)
    gate_G1, is_mla = layer.part.mix.weight[:, None], attention.kind == "mla"
    first = before[0 if is_mla else 1]
    of_third = LayerInputs(carry=first, loop=torch.tensor(2))
    found, carry = layer(x_BSD, rotation, mask, None, of_third)
    query_BHSP = heads_of(layer, x_BSD, rotation, of_third).query_BHSP
    if is_mla:
        latent = layer.kv_latent_norm(layer.kv_down(x_BSD))
        key_rope = rotate(layer.k_rope(x_BSD).unsqueeze(2), rotation).squeeze(2)
        memory = (latent + gate_G1 * (first - latent), key_rope)
    else:
        key = rotate(layer.k_norm(layer.k_proj(x_BSD).unflatten(-1, (2, -1))), rotation)
        value = layer.v_proj(x_BSD).unflatten(-1, (2, -1))
        memory = (key, value + gate_G1 * (first - value))
    expected = layer.o_proj(read(layer, query_BHSP, memory, mask).flatten(2))
    inputs = [x_BSD, first, *layer.parameters()]
    assert_same_with_gradients(found, inputs, expected, inputs, torch.randn_like(found), 1e-6)
    assert torch.equal(carry, first)
    of_first, carry = layer(x_BSD, rotation, mask, None, LayerInputs(carry=first * 0, loop=torch.tensor(0)))
    plain = layer.part
    layer.part = AttentionPart()
    assert torch.equal(of_first, layer(x_BSD, rotation, mask)[0])
    layer.part = plain
    assert torch.equal(carry, latent if is_mla else value)


class Memories(AttentionPart):
    """Records what a layer attends to, and what the part inside attends to besides."""

    def __init__(self, part: AttentionPart) -> None:
        super().__init__()
        self.part = part
        self.own: list[tuple[Tensor, ...]] = []
        self.further: list[tuple[Tensor, ...]] = []

    def start(self, e_BSD: Tensor) -> Carry:
        return self.part.start(e_BSD)

    def project(self, x_BSD: Tensor, heads: tuple[Tensor, ...], inputs: LayerInputs) -> tuple[Tensor, ...]:
        return self.part.project(x_BSD, heads, inputs)

    def attend_to(
        self, memory: tuple[Tensor, ...], mask: Mask | None, inputs: LayerInputs
    ) -> tuple[tuple[Tensor, ...], Mask | None]:
        self.own.append(tuple(each.clone() for each in memory))
        return self.part.attend_to(memory, mask, inputs)

    def attend_further(self, mixed_BSHP: Tensor, attend: Attend, mask: Mask | None, inputs: LayerInputs) -> Tensor:
        def recorded(memory: tuple[Tensor, ...], mask: Mask | None) -> Tensor:
            self.further.append(memory)
            return attend(memory, mask)

        return self.part.attend_further(mixed_BSHP, recorded, mask, inputs)

    def remember(self, written: tuple[Tensor, ...], inputs: LayerInputs) -> Carry:
        return self.part.remember(written, inputs)


def recording(model: Mythos) -> list[Memories]:
    """Wrap the part of each core layer."""
    for block in model.core.blocks:
        block.attention.part = Memories(block.attention.part)
    return [block.attention.part for block in model.core.blocks]


@each_attention
@pytest.mark.parametrize("policy", ["all", "last", "mean", "mod-2", "mod-3"])
@pytest.mark.parametrize("rule", [None, ExitRule("relative_change", 0.5)], ids=["all-loops", "exits"])
@torch.no_grad()
def test_a_loop_reads_what_the_loop_before_attended_to(name: str, policy: str, rule: ExitRule | None) -> None:
    """With every cache policy, for prompts with padding, chunks, single tokens and exited tokens."""
    model = with_parts(name, CROSS, RESIDUAL)
    layers, cache = recording(model), model.new_cache(6, None, policy)
    tokens_BS = random_batch(model.config, length=LENGTH).tokens_BS
    is_real_BS = torch.arange(5) >= torch.tensor([0, 3, 1])[:, None]
    num_seen = set()
    for piece, real in zip(tokens_BS.split((5, 1, 4, 1), dim=1), (is_real_BS, None, None, None), strict=True):
        num_loops_BS = model.decode_until(piece, cache, rule, real).num_loops_BS
        num_seen |= set(num_loops_BS.unique().tolist())
        visible = cache.is_real_BC  # padding exits before the first loop, and no token attends to it
        for layer in layers:
            assert len(layer.own) == len(layer.further) == num_loops_BS[:, -1:].max() or piece.shape[1] > 1
            assert not any(each.any() for each in layer.further[0])
            for before, further in zip(layer.own[:-1], layer.further[1:], strict=True):
                assert all(torch.equal(a[visible], b[visible]) for a, b in zip(before, further, strict=True))
            layer.own.clear()
            layer.further.clear()
    assert (len(num_seen) > 1) == (rule is not None)


@each_config
@each_attention
@torch.no_grad()
def test_decoding_in_chunks_with_exits_equals_decoding_together(part, name: str) -> None:
    model = with_parts(name, part)
    tokens_BS = random_batch(model.config, length=LENGTH).tokens_BS

    def decoded(cuts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        cache = model.new_cache(6, None)
        pieces = [model.decode_until(x, cache, ExitRule("relative_change", 0.5)) for x in tokens_BS.split(cuts, dim=1)]
        return torch.cat([x.logits_BSV for x in pieces], 1), torch.cat([x.num_loops_BS for x in pieces], 1)

    together_BSV, num_loops_BS = decoded((LENGTH,))
    assert num_loops_BS.unique().numel() > 1
    for cuts in ((1,) * LENGTH, (4, 1, 5, 1)):
        logits_BSV, num_loops = decoded(cuts)
        assert torch.equal(num_loops, num_loops_BS)
        assert relative_error(logits_BSV, together_BSV) < 1e-5


@each_config
@each_attention
@pytest.mark.parametrize("policy", ["all", "mean", "mod-2"])
@torch.no_grad()
def test_padding_and_reordered_rows_change_nothing(part, name: str, policy: str) -> None:
    model, lengths = with_parts(name, part), (4, 7, 1)
    tokens_BS = random_batch(model.config, length=LENGTH).tokens_BS
    is_real_BS = torch.arange(7) >= 7 - torch.tensor(lengths)[:, None]
    options = {"temperature": 0, "top_k": None, "seed": 0, "cache_policy": policy, "rule": ExitRule("stable_argmax", 2)}
    together = generate(model, tokens_BS[:, :7] * is_real_BS, 4, 4, is_real_BS=is_real_BS, **options)
    for row, length in enumerate(lengths):
        alone = generate(model, tokens_BS[row : row + 1, 7 - length : 7], 4, 4, **options)
        assert torch.equal(together.tokens_BS[row], alone.tokens_BS[0])
    rows = torch.tensor([2, 0, 0])
    cache, other = (model.new_cache(3, None, policy) for _ in range(2))
    model.decode(tokens_BS[:, :6], cache)
    cache.reorder(rows)
    model.decode(tokens_BS[rows, :6], other)
    assert relative_error(model.decode(tokens_BS[:, 6:], cache), model.decode(tokens_BS[:, 6:], other)) < 1e-5


@each_config
def test_one_row_of_tables_does_not_make_every_loop_the_first(part) -> None:
    """Loops beyond the tables over loops read their last row, and are still no first loop."""
    short, long = (with_parts("debug-dense", part, max_loops=num) for num in (1, 8))
    long.load_state_dict(short.state_dict() | {"core.router_bias": long.core.router_bias})
    batch = random_batch(short.config)
    assert torch.equal(short(batch, NUM_LOOPS).nll_XBS, long(batch, NUM_LOOPS).nll_XBS)


def test_figures_are_the_mean_and_the_largest_absolute_gate() -> None:
    found = gate_figures(iter([torch.tensor([0.5, 0.25]), torch.tensor([0.0, 0.75])]))
    assert {name: value.item() for name, value in found.items()} == {"gate": 0.375, "largest_gate": 0.75}
    assert gate_figures([]) == {}
    model = with_parts("debug-dense", CROSS, RESIDUAL)
    cross, residual = parts_inside(model)[:2]
    assert torch.equal(cross.gates(), cross.gate.weight.tanh())
    assert torch.equal(residual.gates(), residual.mix.weight)
