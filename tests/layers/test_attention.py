import pytest
import torch
from helpers import assert_same_with_gradients, fill, gradients, relative_error
from torch import Tensor, nn

from mythos.config.model import GQAConfig, MLAConfig
from mythos.layers.attention import GroupedQueryAttention
from mythos.layers.cache import LayerCache
from mythos.layers.mask import BLOCK, attend, block_mask, dense_mask, document_mask, mask_of_rows
from mythos.layers.mla import LatentAttention
from mythos.layers.rope import Rotation, rotate, rotation_at

DIM, WIDTH = 24, 6


def build(kind: str) -> tuple[nn.Module, Rotation]:
    positions = torch.arange(11).expand(2, 11)
    if kind == "gqa":
        config = GQAConfig(num_heads=4, num_kv_heads=2, head_dim=WIDTH)
        layer: nn.Module = GroupedQueryAttention(config, DIM, WIDTH, 1e-6)
        rotation = rotation_at(positions, WIDTH, 100.0)
    else:
        config = MLAConfig(
            num_heads=3,
            query_rank=10 if kind == "mla-low-rank-query" else None,
            kv_rank=7,
            nope_head_dim=5,
            rope_head_dim=4,
            value_head_dim=3,
        )
        layer = LatentAttention(config, DIM, 1e-6)
        rotation = rotation_at(positions, 4, 100.0)
    fill(layer)
    return layer, rotation


def part(rotation: Rotation, start: int, end: int) -> Rotation:
    return Rotation(rotation.cos[:, start:end], rotation.sin[:, start:end])


def inputs() -> Tensor:
    return torch.randn(2, 11, DIM, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", ["gqa", "mla", "mla-low-rank-query"])
@pytest.mark.parametrize("cuts", [(11,), (1,) * 11, (4, 1, 3, 2, 1)])
def test_cached_attention_equals_full_attention(kind: str, cuts: tuple[int, ...]) -> None:
    layer, rotation = build(kind)
    x = inputs()
    full = layer(x, rotation, None)[0]
    cache, start, parts = LayerCache(capacity=11), 0, []
    for length in cuts:
        end = start + length
        parts.append(layer(x[:, start:end], part(rotation, start, end), None, cache)[0])
        cache.commit(length)
        start = end
    assert relative_error(torch.cat(parts, 1), full) < 2e-6


@pytest.mark.parametrize("kind", ["gqa", "mla"])
def test_no_token_attends_to_another_document_or_the_future(kind: str) -> None:
    layer, rotation = build(kind)
    ids = torch.tensor([[0] * 4 + [1] * 7, [0] * 11])
    mask = dense_mask(ids)
    x = inputs()
    before = layer(x, rotation, mask)[0]
    disturbed = x.clone()
    disturbed[0, 2] += 1.0
    after = layer(disturbed, rotation, mask)[0]
    changed = (after != before).any(-1)
    assert changed[0].tolist() == [False, False, True, True] + [False] * 7
    assert not changed[1].any()


def test_causal_attention_without_a_mask_equals_a_dense_mask() -> None:
    layer, rotation = build("gqa")
    x = inputs()
    mask = dense_mask(torch.zeros(2, 11, dtype=torch.long))
    assert relative_error(layer(x, rotation, None)[0], layer(x, rotation, mask)[0]) < 1e-6


def test_gqa_equals_attention_written_out() -> None:
    layer, rotation = build("gqa")
    x = inputs()

    def naive() -> Tensor:
        query = rotate(layer.q_norm(layer.q_proj(x).view(2, 11, 4, WIDTH)), rotation)
        key = rotate(layer.k_norm(layer.k_proj(x).view(2, 11, 2, WIDTH)), rotation)
        value = layer.v_proj(x).view(2, 11, 2, WIDTH)
        heads = []
        for head in range(4):
            group = head // 2
            score = query[:, :, head] @ key[:, :, group].transpose(1, 2) / WIDTH**0.5
            score = score.masked_fill(torch.ones(11, 11).triu(1).bool(), float("-inf"))
            heads.append(score.softmax(-1) @ value[:, :, group])
        return layer.o_proj(torch.cat(heads, -1))

    weight = torch.randn(2, 11, DIM, generator=torch.Generator().manual_seed(4))
    results = []
    for forward in (lambda: layer(x, rotation, None)[0], naive):
        layer.zero_grad()
        y = forward()
        (y * weight).sum().backward()
        results.append((y, gradients(layer)))
    (fast, fast_grads), (slow, slow_grads) = results
    assert relative_error(fast, slow) < 1e-6
    assert all(relative_error(fast_grads[name], slow_grads[name]) < 2e-6 for name in slow_grads)


@pytest.mark.parametrize("num_documents", [1, 4, 40])
def test_blocks_equal_the_dense_mask(num_documents: int) -> None:
    generator = torch.Generator().manual_seed(num_documents)
    opens = torch.zeros(3, 4 * BLOCK, dtype=torch.long)
    opens.scatter_(1, torch.randint(4 * BLOCK, (3, num_documents), generator=generator), 1)
    ids = opens.cumsum(1)
    blocks, attended = block_mask(ids), dense_mask(ids)[:, 0].view(3, 4, BLOCK, 4, BLOCK).transpose(2, 3)
    needed = attended.any(-1).any(-1)
    is_full = attended.all(-1).all(-1)
    assert torch.equal(blocks.to_dense()[:, 0].bool(), needed)
    assert torch.equal(blocks.full_kv_num_blocks[:, 0], is_full.sum(-1).int())
    positions = [torch.arange(n) for n in (3, 4 * BLOCK, 4 * BLOCK)]
    batch, query, key = torch.meshgrid(*positions, indexing="ij")
    assert torch.equal(blocks.mask_mod(batch, None, query, key), dense_mask(ids)[:, 0])
    rows = mask_of_rows(blocks, 2)
    assert torch.equal(rows.to_dense(), blocks.to_dense()[:2])


@pytest.mark.gpu
@pytest.mark.parametrize("num_kv_heads", [1, 4])
def test_block_masks_of_documents_equal_a_dense_mask(num_kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = (torch.rand(2, 4 * BLOCK, generator=generator) < 0.01).cumsum(1).cuda()

    def heads(num: int) -> Tensor:
        x = torch.randn(2, num, 4 * BLOCK, 64, generator=generator).cuda()
        return x.bfloat16().requires_grad_()

    inputs = (heads(4), heads(num_kv_heads), heads(num_kv_heads))
    exact_inputs = tuple(x.detach().float().requires_grad_() for x in inputs)
    grad = torch.randn(2, 4, 4 * BLOCK, 64, generator=generator).cuda()
    exact = attend(*exact_inputs, dense_mask(ids))
    result = attend(*inputs, document_mask(ids, torch.bfloat16))
    assert_same_with_gradients(result, inputs, exact, exact_inputs, grad, 8e-3)
