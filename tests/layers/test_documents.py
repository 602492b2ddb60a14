import pytest
import torch
from helpers import assert_same_with_gradients, relative_error
from torch import Tensor

from mythos.layers.documents import Documents, attend_documents, count_documents, documents_of, is_available
from mythos.layers.kernels import HAS_FLASH
from mythos.layers.mask import attend, dense_mask, document_mask, mask_of_rows

BATCH, LENGTH = 3, 13


def random_ids(probability: float, seed: int = 0, shape: tuple[int, int] = (BATCH, LENGTH)) -> tuple[Tensor, int]:
    """Return the document of each token, as in the data, and the number of documents."""
    opens_BS = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < probability
    opens_BS[:, 0] = False
    ids = opens_BS.cumsum(1)
    return ids, count_documents(ids)


def heads(num_heads: int, seed: int, length: int = LENGTH, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, length, num_heads, width, generator=generator).transpose(1, 2)


def test_document_offsets_are_padded() -> None:
    ids = torch.tensor([[0, 0, 1, 2, 2], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]])
    assert count_documents(ids) == 6
    documents = documents_of(ids, 6)
    assert documents.begin_C.dtype == torch.int32
    assert documents.begin_C.tolist() == [0, 2, 3, 5, 10, 11] + [15] * 59
    assert documents.first(2).begin_C.tolist() == [0, 2, 3, 5] + [10] * 61
    assert mask_of_rows(documents, 2).begin_C.equal(documents.first(2).begin_C)
    assert len(documents_of(torch.arange(200)[None], 200).begin_C) == 257


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_by_documents_equals_a_dense_mask(probability: float, num_kv_heads: int, scale: float | None) -> None:
    ids, count = random_ids(probability)
    inputs = [heads(num, seed).requires_grad_() for seed, num in enumerate((4, num_kv_heads, num_kv_heads))]
    grad = heads(4, seed=3)
    exact = attend(*inputs, dense_mask(ids), scale)
    result = attend(*inputs, documents_of(ids, count), scale)
    assert_same_with_gradients(result, inputs, exact, inputs, grad, 1e-6)


def test_another_number_of_documents_does_not_recompile() -> None:
    def change(query: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
        return attend_documents(query * 2, key, value, documents, None) + 1

    inputs = [heads(2, seed, length=90).requires_grad_() for seed in range(3)]
    run = torch.compile(change, dynamic=False, backend="aot_eager", fullgraph=True)
    counters = torch._dynamo.utils.counters
    before = counters["stats"]["unique_graphs"]
    for probability in (0.05, 0.9, 0.4):
        ids, count = random_ids(probability, shape=(BATCH, 90))
        result, exact = run(*inputs, documents_of(ids, count)), change(*inputs, documents_of(ids, count))
        for ours, theirs in zip(*(torch.autograd.grad(y.sum(), inputs) for y in (result, exact)), strict=True):
            assert relative_error(ours, theirs) < 1e-6
    assert counters["stats"]["unique_graphs"] - before == 1


def test_without_the_kernels_the_mask_is_dense() -> None:
    ids, count = random_ids(0.2)
    assert not is_available(ids, torch.bfloat16, 64)
    assert isinstance(document_mask(ids, torch.bfloat16, 64, count), Tensor)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_FLASH, reason="needs flash-attn-4")
@pytest.mark.parametrize("num_kv_heads", [1, 4])
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("probability", [0.0, 0.01, 0.5])
def test_kernels_equal_a_dense_mask(num_kv_heads: int, width: int, probability: float) -> None:
    ids, count = random_ids(probability, shape=(BATCH, 500))
    mask = document_mask(ids.cuda(), torch.bfloat16, width, count)
    assert isinstance(mask, Documents)
    num_heads = (4, num_kv_heads, num_kv_heads)
    inputs = [heads(n, seed, 500, width).cuda().bfloat16().requires_grad_() for seed, n in enumerate(num_heads)]
    exact_inputs = [x.detach().float().requires_grad_() for x in inputs]
    grad = heads(4, 3, 500, width).cuda()
    exact, result = attend(*exact_inputs, dense_mask(ids.cuda())), attend(*inputs, mask)
    assert_same_with_gradients(result, inputs, exact, exact_inputs, grad, 8e-3)
