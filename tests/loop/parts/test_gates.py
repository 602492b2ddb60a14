"""Gates: keep gate and memory gate start as the identity, the GRT gate does not, and each is its equation."""

import numpy as np
import part_pairs
import pytest
import torch
from helpers import MODELS, gradients, model_config, random_batch, random_model
from torch import Tensor
from torch.nn.functional import rms_norm

from mythos.config.loop_parts.gates import GrtGateConfig, KeepGateConfig, MemoryGateConfig
from mythos.config.parts import LoopConfig
from mythos.loop.part import LoopState
from mythos.loop.remat import Remat
from mythos.model.init import initialize
from mythos.model.mythos import Mythos

NUM_LOOPS = 5
GATES = {
    "grt_gate": GrtGateConfig(rank=3, temperature=0.5),
    "keep_gate": KeepGateConfig(rank=3),
    "memory_gate": MemoryGateConfig(rank=3),
}
IDENTITIES = ["keep_gate", "memory_gate"]


def pair(kind: str, name: str = "debug") -> tuple[Mythos, Mythos]:
    """A model with the gate and one without, with the same random weights otherwise."""
    return part_pairs.pair(GATES[kind], name=name)


def close(model: Mythos) -> None:
    """Give the gate its initial values."""
    start = Mythos(model.config)
    initialize(start, model.config, seed=3)
    model.core.parts.load_state_dict(start.core.parts.state_dict())


def trained(model: Mythos) -> tuple[Tensor, dict[str, Tensor]]:
    output = model(random_batch(model.config, num_documents=2), NUM_LOOPS, 3, exits=(2, 4), noise_seed=1)
    output.nll_XBS.mean().backward()
    return output.nll_XBS.detach(), gradients(model)


@pytest.mark.parametrize("kind", IDENTITIES)
@pytest.mark.parametrize("name", MODELS)
def test_a_new_gate_is_the_model_without_it_bitwise(kind: str, name: str) -> None:
    with_gate, without = pair(kind, name)
    close(with_gate)
    (ours, our_gradients), (theirs, their_gradients) = trained(with_gate), trained(without)
    assert torch.equal(ours, theirs)
    assert all(torch.equal(our_gradients[key], gradient) for key, gradient in their_gradients.items())
    opened = {"keep_gate": "core.parts.0.gate.up.weight", "memory_gate": "core.parts.0.cell.opening"}[kind]
    assert our_gradients[opened].any()  # the gate learns from the first step on
    tokens_BS = random_batch(without.config).tokens_BS
    logits = [model.decode(tokens_BS, model.new_cache(NUM_LOOPS, None)) for model in (with_gate, without)]
    assert torch.equal(*logits)
    assert with_gate.core.parts[0].figures()["opening"] == 0


def unrolled(without: Mythos, new_state) -> Tensor:
    """The last state, where ``new_state(h, e, F(h))`` follows each loop of a model without gates."""
    batch = random_batch(without.config, num_documents=2)
    inputs = without._inputs(batch)
    h_BSD = torch.zeros_like(inputs.e_BSD)
    for loop in range(NUM_LOOPS):
        state = LoopState(h_BSD, layer_carries=((),) * len(without.core.blocks))
        y_BSD = without.core.step(state, inputs._replace(loop=loop))[0].h_BSD
        h_BSD = new_state(h_BSD, inputs.e_BSD, y_BSD)
    return h_BSD


def assert_equation(with_gate: Mythos, without: Mythos, new_state) -> None:
    expected = unrolled(without, new_state)
    found = with_gate(random_batch(without.config, num_documents=2), NUM_LOOPS).state_BSD
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, unrolled(without, lambda h, e, y: y), rtol=1e-2)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_an_open_keep_gate_is_its_equation(name: str) -> None:
    with_gate, without = pair("keep_gate", name)
    part = with_gate.core.parts[0].gate
    for norm in (part.norm_h, part.norm_y):
        norm.weight.fill_(1.0)

    def new_state(h: Tensor, e: Tensor, y: Tensor) -> Tensor:
        both = torch.cat([rms_norm(each, each.shape[-1:], eps=1e-6) for each in (h, y)], -1)
        keep = torch.tanh(both @ part.down.weight.T @ part.up.weight.T)
        return y + keep * (h - y)

    assert_equation(with_gate, without, new_state)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_grt_gate_is_its_equation(name: str) -> None:
    with_gate, without = pair("grt_gate", name)
    part = with_gate.core.parts[0].gate
    for norm in (part.norm_h, part.norm_y):
        norm.weight.fill_(1.0)

    def new_state(h: Tensor, e: Tensor, y: Tensor) -> Tensor:
        both = torch.cat([rms_norm(each, each.shape[-1:], eps=1e-6) for each in (h, y)], -1)
        hidden = both @ part.down.weight.T
        logits = (hidden / (1 + (-hidden).exp())) @ part.up.weight.T + part.up.bias
        gate = 1 / (1 + (-logits / 0.5).exp())
        return gate * h + (1 - gate) * y

    assert_equation(with_gate, without, new_state)


def test_a_new_grt_gate_keeps_most_of_the_old_state_and_learns_from_the_first_step() -> None:
    """It is not the identity."""
    with_gate, without = pair("grt_gate")
    close(with_gate)
    kept = torch.tensor(4.0 / 0.5).sigmoid().item()
    with torch.no_grad():
        assert_equation(with_gate, without, lambda h, e, y: kept * h + (1 - kept) * y)
    assert with_gate.core.parts[0].figures()["bias_gate"].item() == pytest.approx(kept, rel=1e-6)
    _, our_gradients = trained(with_gate)
    assert our_gradients["core.parts.0.gate.up.weight"].any()
    assert our_gradients["core.parts.0.gate.up.bias"].any()


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_an_open_memory_gate_is_its_equation(name: str) -> None:
    with_gate, without = pair("memory_gate", name)
    part = with_gate.core.parts[0].cell
    for norm in (part.norm_h, part.norm_y):
        norm.weight.fill_(1.0)
    cells: list[Tensor] = [torch.zeros(())]

    def new_state(h: Tensor, e: Tensor, y: Tensor) -> Tensor:
        normed = [rms_norm(each, each.shape[-1:], eps=1e-6) for each in (h, y)]
        z = torch.cat((normed[0], e, normed[1]), -1) @ part.down.weight.T @ part.up.weight.T + part.up.bias
        forget, write, read = (1 / (1 + (-each).exp()) for each in z.chunk(3, -1))
        cells.append(forget * cells[-1] + write * y)
        return y + torch.tanh(part.opening) * (2 * read * cells[-1] - y)

    assert_equation(with_gate, without, new_state)


@torch.no_grad()
def test_the_memory_starts_as_a_leaky_mean_of_the_outputs() -> None:
    """Forget and input gate add up to one, and the output gate is one."""
    with_gate, _ = pair("memory_gate")
    close(with_gate)
    h, e, y = torch.randn(3, 2, 5, with_gate.config.dim).unbind(0)
    forget = torch.tensor(1.0).sigmoid()
    _, cell = with_gate.core.parts[0].cell(h, e, y, h)
    torch.testing.assert_close(cell, forget * h + (1 - forget) * y)


@pytest.mark.parametrize("remat", ["none", "loop", "block"])
def test_a_watched_forward_returns_what_the_gates_were(remat: str) -> None:
    """Means and saturated shares by loop, of sequences of their own depth, against gates that the test computes."""
    parts = (KeepGateConfig(rank=3), MemoryGateConfig(rank=3), GrtGateConfig(rank=3))
    model = random_model(model_config(loop=LoopConfig(parts=parts)))
    with torch.no_grad():
        model.core.parts[0].gate.up.weight.mul_(6)  # so that some values are saturated
    model.core.remat = Remat(remat)
    seen: list[Tensor] = []

    def take(module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(module.keep(*inputs).detach())

    handle = model.core.parts[0].gate.register_forward_hook(take)
    batch, loops_B = random_batch(model.config), np.array([2, 4, 4])
    output = model(batch, 4, trace=True, loops_B=loops_B, noise_seed=1)
    handle.remove()
    keep, memory, grt = output.trace.gates
    assert list(memory) == ["forget", "write", "half_read"]
    assert list(keep) == list(grt) == ["keep"]
    assert [len(each) for each in seen] == [2, 2, 3, 3]  # the sequence of two loops enters in the third one
    own_loops = [seen[0], seen[1], seen[2][:2], seen[3][:2]]
    by_own_loop = [torch.cat((seen[0], seen[2][2:])), torch.cat((seen[1], seen[3][2:])), *own_loops[2:]]
    for loop, values in enumerate(by_own_loop):
        expected = [values.mean(), (values.abs() < 0.02).float().mean(), (values.abs() > 0.98).float().mean()]
        torch.testing.assert_close(keep["keep"][loop], torch.stack(expected), rtol=1e-5, atol=1e-6)
    assert (keep["keep"][:, 1:].amax(0) > 0).all()
    for gate in (*memory.values(), *grt.values()):
        assert gate.shape == (4, 3)
        assert ((gate >= 0) & (gate <= 1)).all()


def test_an_unwatched_forward_computes_no_gate_twice() -> None:
    model = random_model(model_config(loop=LoopConfig(parts=(KeepGateConfig(rank=3),))))
    calls: list[int] = []
    model.core.parts[0].gate.down.register_forward_hook(lambda *_: calls.append(1))
    batch = random_batch(model.config)
    for trace, factor in ((False, 1), (True, 2)):
        calls.clear()
        model(batch, NUM_LOOPS, trace=trace)
        assert len(calls) == factor * NUM_LOOPS
