"""Depth-wise LoRA: its equation on every matrix that it changes, its tables, its account and its refusal."""

from fnmatch import fnmatchcase

import pytest
import torch
from helpers import MODELS, random_batch, relative_error, run_config
from part_pairs import pair, state_and_gradients
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mythos.account.flops import loop_flops
from mythos.account.parameters import count_parameters
from mythos.account.saved import Runtime
from mythos.config.base import ConfigError
from mythos.config.loop_parts.depth_lora import DepthLoraConfig, head_widths
from mythos.config.parts import parts_of
from mythos.layers.attention_part import LayerInputs
from mythos.loop.part import LoopState
from mythos.loop.parts.depth_lora import LaterLoops
from mythos.model.mythos import Mythos
from mythos.moe.router import Router

RANK = 3
LORA = DepthLoraConfig(rank=RANK)
NUM_LOOPS, MAX_LOOPS = 6, 4
"""Three rows of tables: loops 1, 2, and all later ones."""
each_model = pytest.mark.parametrize("name", MODELS)


def merged(model: Mythos, without: Mythos, loop: int) -> None:
    """Give a model without the part the matrices W + B_t A_t of a loop, differentiable in all of them."""
    for ours, theirs in zip(model.core.blocks, without.core.blocks, strict=True):
        lora, attention = ours.attention.part.parts[0], theirs.attention
        down_RD = dict(zip(lora.up, product(lora.down, loop).chunk(len(lora.up)), strict=True))
        for name in lora.up:
            change_OD = product(lora.up[name], loop) @ down_RD[name]
            owner = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "latent": "kv_down", "k_rope": "k_rope"}[name]
            assign(getattr(attention, owner), getattr(ours.attention, owner).weight + change_OD)
        if theirs.is_moe:
            router = ours.router_part.parts[0]
            change_ED = product(router.router_up, loop) @ product(router.router_down, loop)
            assign(theirs.ffn.router.gate, ours.ffn.router.gate.weight + change_ED)


def product(table: LaterLoops, loop: int) -> Tensor:
    """The matrix of a loop; none in the first one."""
    return table.weight[min(loop, MAX_LOOPS - 1) - 1] * (loop > 0)


def assign(module: nn.Module, weight_OI: Tensor) -> None:
    """Replace a parameter by a tensor that depends on others."""
    module._parameters.pop("weight", None)
    module.weight = weight_OI


def unrolled(model: Mythos, without: Mythos) -> Tensor:
    inputs = without._inputs(random_batch(without.config, num_documents=2))
    h_BSD = torch.zeros_like(inputs.e_BSD)
    for loop in range(NUM_LOOPS):
        merged(model, without, loop)
        state = LoopState(h_BSD, layer_carries=((),) * len(without.core.blocks))
        h_BSD = without.core.step(state, inputs._replace(loop=loop))[0].h_BSD
    return h_BSD


@pytest.mark.parametrize("name", ["debug", "debug-dense"])
def test_each_loop_has_its_own_matrices(name: str) -> None:
    """W + B_t A_t in every loop, against a model whose matrices are replaced: outputs and gradients."""
    model, without = pair(LORA, name=name, max_loops=MAX_LOOPS)
    expected, of_lora = state_and_gradients(model, unrolled(model, without))
    of_lora = {key: value for key, value in of_lora.items() if is_changed(key)}
    found, of_all = state_and_gradients(model, model(random_batch(model.config, num_documents=2), NUM_LOOPS).state_BSD)
    assert relative_error(found, expected) < 1e-5
    assert len(of_lora) == len(model.core.blocks) * (3 + 4 + (3 if name == "debug" else 0))
    for key, gradient in of_lora.items():
        assert relative_error(of_all[key], gradient) < 1e-4, key


def is_changed(key: str) -> bool:
    """Whether it is a matrix of the core that the part changes, or one of its own."""
    names = ("*.part.*", "*.router_part.*", "*.attention.[qkv]_proj.weight", "*.router.gate.weight")
    return any(fnmatchcase(key, f"core.blocks.{name}") for name in names)


def test_the_first_loop_has_the_untouched_matrices_bitwise() -> None:
    model, without = pair(LORA)
    batch = random_batch(model.config, num_documents=2)
    assert torch.equal(model(batch, 1).nll_XBS, without(batch, 1).nll_XBS)
    assert relative_error(model(batch, 2).nll_XBS, without(batch, 2).nll_XBS) > 1e-3


@torch.no_grad()
def test_mla_changes_queries_the_normalised_latent_and_the_rotated_key() -> None:
    model, _ = pair(LORA, name="debug-mla")
    lora = model.core.blocks[0].attention.part.parts[0]
    widths = head_widths(model.config)
    assert list(widths) == ["q", "latent", "k_rope"]
    x_BSD = torch.randn(2, 5, model.config.dim)
    heads = tuple(torch.randn(2, 5, width) for width in widths.values())
    changed = lora.project(x_BSD, heads, LayerInputs(torch.tensor([0, 2])))
    down_RD = lora.down.weight[1].chunk(3)
    for head, found, name, down in zip(heads, changed, widths, down_RD, strict=True):
        assert torch.equal(found[0], head[0])
        expected = head[1] + x_BSD[1] @ down.T @ lora.up[name].weight[1].T
        torch.testing.assert_close(found[1], expected, rtol=1e-5, atol=1e-5)


def test_a_router_with_a_matrix_for_each_sequence_routes_each_as_alone() -> None:
    model, _ = pair(LORA)
    router: Router = model.core.blocks[0].ffn.router
    x_BSD, bias_E = torch.randn(3, 7, model.config.dim), torch.zeros(router.config.num_experts)
    change_BED = torch.randn(3, router.config.num_experts, model.config.dim)
    routing, stats = router(x_BSD, bias_E, None, change_BED)
    for row in range(3):
        alone, _ = router(x_BSD[row : row + 1], bias_E, None, change_BED[row])
        rows = slice(7 * row, 7 * row + 7)
        assert torch.equal(routing.expert_indices_NK[rows], alone.expert_indices_NK)
        torch.testing.assert_close(routing.weight_NK[rows], alone.weight_NK, rtol=1e-5, atol=1e-6)
    assert stats.counts_E.sum() == 3 * 7 * router.config.num_active


@each_model
def test_flops_of_each_token_are_those_of_torch(name: str) -> None:
    """The router's matrix is made once for all tokens, so the FLOPs of two more sequences are counted."""
    model, without = pair(LORA, name=name)
    more = [counted(each, 4) - counted(each, 2) for each in (model, without)]
    of_part = loop_flops(model.config, 20).total - loop_flops(without.config, 20).total
    assert more[0] - more[1] == 2 * 20 * of_part


@torch.no_grad()
def counted(model: Mythos, batch: int) -> int:
    inputs = model._inputs(random_batch(model.config, batch=batch, length=20))
    state = model._start(inputs)
    with FlopCounterMode(display=False) as counter:
        model.core.step(state, inputs)
    return counter.get_total_flops()


@each_model
@pytest.mark.parametrize("is_bf16", [False, True])
def test_saved_activations_are_what_the_graph_saves(name: str, is_bf16: bool) -> None:
    model, without = pair(LORA, name=name)
    part = parts_of(model.config)[-1]
    runtime = Runtime(width=2, casts_weights=True) if is_bf16 else Runtime()
    difference = saved_bytes(model, is_bf16) - saved_bytes(without, is_bf16)
    assert difference == 2 * 20 * 2 * part.spec.saved_in_attention(part.config, model.config, runtime)


def saved_bytes(model: Mythos, is_bf16: bool) -> int:
    """Bytes of tensors of tokens that one loop saves."""
    inputs = model._inputs(random_batch(model.config, batch=2, length=20))
    state = model._start(inputs).map(lambda x: x + 0)
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        output = model.core.step(state, inputs._replace(loop=1))
    del output
    for tensor in model.parameters():
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(each.untyped_storage().nbytes() for each in saved.values() if each.shape[:1] in ((2,), (40,)))


@each_model
def test_parameters_are_counted(name: str) -> None:
    model, _ = pair(LORA, name=name)
    assert sum(each.numel() for each in model.parameters()) == count_parameters(model.config).total


def test_a_model_of_one_loop_is_refused() -> None:
    sentence = r"model.loop.parts.0: depth_lora changes the loops after the first, but model.max_loops is 1; set "
    with pytest.raises(ConfigError, match=sentence + "model.max_loops to 2 or more."):
        run_config("model/loop=depth_lora", "model.max_loops=1")
