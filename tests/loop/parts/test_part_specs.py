"""Every kind of injection and loop part is complete: what its spec states is what the part does."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import MODELS, gradients, model_config, random_batch, random_model, recorded, relative_error, run_config
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from mythos.account.decoding import decode_bytes
from mythos.account.flops import loop_flops
from mythos.account.saved import Runtime
from mythos.config.injection import INJECTIONS
from mythos.config.model import ModelConfig
from mythos.config.part_spec import FIELDS, PartSpec, load_object
from mythos.config.parts import PARTS, LoopConfig, Part, optimizer_groups, parts_of
from mythos.layers.attention_part import gate_figures
from mythos.loop.part import LoopInputs, LoopPart
from mythos.loop.remat import Remat
from mythos.loop.run import Schedule, run_loop
from mythos.model.init import initialize, rule_for
from mythos.model.mythos import Mythos
from mythos.optim.groups import grouping
from mythos.train.build import train
from mythos.train.run_directory import prepare
from mythos.types import Batch, take_rows

KINDS: dict[str, PartSpec] = INJECTIONS | PARTS
BATCH, LENGTH, NUM_LOOPS = 3, 20, 5
ONE_STEP = """data.seq_len=32 data.batch_size=2 data.micro_batch_size=2 depth.mean=2 run.num_steps=1 run.name=figures
run.validation.num_batches=2 schedule.num_warmup_steps=0 tracking.log_every=1 telemetry.trace_every=1
parallel.device=cpu""".split()
CAN_BE_NONE = {"attention_build", "router_build", "new_carry_elements"}
every_kind = pytest.mark.parametrize("kind", KINDS)
inside = pytest.mark.parametrize("kind", [kind for kind, spec in PARTS.items() if spec.attention_build is not None])
every_attention = pytest.mark.parametrize("name", ["debug-dense", "debug-mla"])


def with_kind(kind: str, name: str = "debug", **changes: Any) -> ModelConfig:
    """A model with a part, or an injection, of this kind at its defaults."""
    part = KINDS[kind].config()
    own = {"injection": part} if kind in INJECTIONS else {"loop": LoopConfig(parts=(part,))}
    return model_config(name, **own, **changes)


def of_kind(model: ModelConfig) -> Part:
    """The part that ``with_kind`` puts into a model."""
    return parts_of(model)[-1]


def inside_attention(model: Mythos) -> Iterator[nn.Module]:
    """The attention part of each core block; nothing if the part has none."""
    for part in model.core.attention_parts():
        yield from getattr(part, "parts", ())


def beside_routers(model: Mythos) -> Iterator[nn.Module]:
    """The part beside the router of each core block; nothing if the part has none."""
    for block in model.core.blocks:
        yield from getattr(block.router_part, "parts", ())


@every_kind
def test_every_field_is_stated(kind: str) -> None:
    spec = KINDS[kind]
    assert all(getattr(spec, field) is not None for field in FIELDS if field not in CAN_BE_NONE)
    assert spec.build
    assert spec.config().kind == kind
    assert spec.config.__doc__


@every_kind
def test_shapes_are_those_of_the_built_module(kind: str) -> None:
    config = with_kind(kind)
    model, part = Mythos(config), of_kind(config)
    module = model.get_submodule(part.prefix)
    assert type(module) is load_object(part.spec.build)
    assert shapes_of(module) == part.spec.shapes(part.config, config)
    assert shapes_of(load_object(part.spec.build)(part.config, config)) == part.spec.shapes(part.config, config)
    attention_shapes = part.spec.attention_shapes(part.config, config)
    assert (part.spec.attention_build is not None) == bool(list(inside_attention(model)))
    assert all(shapes_of(each) == attention_shapes for each in inside_attention(model))
    router_shapes = part.spec.router_shapes(part.config, config)
    assert (part.spec.router_build is not None) == bool(list(beside_routers(model)))
    assert all(shapes_of(each) == router_shapes for each in beside_routers(model))


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


@every_kind
def test_values_groups_and_fp32_name_the_parameters(kind: str) -> None:
    """Of all models together: a part may have others with MLA, or with experts."""
    configs = [with_kind(kind, name) for name in MODELS]
    spec = of_kind(configs[0]).spec
    names = {name for config in configs for _, name in of_kind(config).parameters(config)}
    assert spec.initial_values.keys() == names
    assert spec.optimizer_group.keys() == names
    assert names >= set(spec.fp32)


@every_kind
def test_every_parameter_has_one_rule_and_one_group(kind: str) -> None:
    config = with_kind(kind)
    model, group_of = Mythos(config), grouping(config)
    part = of_kind(config)
    of_part = dict(optimizer_groups(config))
    for name, _ in model.named_parameters():
        rule_for(name, config)
        group_of(name)
    for name in part.spec.shapes(part.config, config):
        assert group_of(f"{part.prefix}.{name}") == part.spec.optimizer_group[name]
        assert of_part[f"{part.prefix}.{name}"] == part.spec.optimizer_group[name]
    initialize(model, config, seed=0)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def run_alone(module: nn.Module, h_BSD: Tensor, e_BSD: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """One loop of the part, in which the rest of the loop adds one: the state, and the carry before and after it."""
    if isinstance(module, LoopPart):
        inputs = LoopInputs(e_BSD, rotation=None, mask=None, loop=1)
        # A carry that starts as e is a tensor of its own in later loops.
        carry = tree_map(lambda each: each + 0 if each is e_BSD else each, module.start(h_BSD, e_BSD))
        new_BSD, after = module(h_BSD, carry, inputs, lambda x_BSD: x_BSD + 1)
        return new_BSD, tree_leaves(carry), tree_leaves(after)
    return module(h_BSD, e_BSD), [], []


def states(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """A state that an operation made, and e."""
    leaf_BSD = torch.randn(BATCH, LENGTH, config.dim, requires_grad=True)
    return leaf_BSD + 1, torch.randn(BATCH, LENGTH, config.dim)


@every_kind
def test_flops_are_those_of_the_part_alone(kind: str) -> None:
    config = with_kind(kind)
    part, module = of_kind(config), random_model(config).get_submodule(of_kind(config).prefix)
    with FlopCounterMode(display=False) as counter:
        run_alone(module, *states(config))
    alone = counter.get_total_flops() / (BATCH * LENGTH)
    if part.spec.attention_build is None:
        assert alone == part.spec.flops(part.config, config, LENGTH)


class Saved:
    """Tensors that a graph saves, one for each storage."""

    def __init__(self, is_bf16: bool) -> None:
        self.tensors: dict[int, Tensor] = {}
        self.is_bf16 = is_bf16
        self.runtime = Runtime(width=2, casts_weights=True) if is_bf16 else Runtime()

    def run(self, function: Callable[[], Tensor]) -> None:
        hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16):
            assert function().requires_grad

    def pack(self, tensor: Tensor) -> Tensor:
        self.tensors[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def num_bytes(self, shared: Iterable[Tensor]) -> int:
        """Bytes that hold a value for each token, without shared tensors and casts of weights."""
        pointers = {each.untyped_storage().data_ptr() for each in shared}
        own = [each for pointer, each in self.tensors.items() if pointer not in pointers]
        return sum(each.untyped_storage().nbytes() for each in own if is_of_tokens(each))


def is_of_tokens(tensor: Tensor) -> bool:
    """Whether a tensor has values for each token, and not for each sequence or weight."""
    return tensor.shape[0] == BATCH * LENGTH or (tensor.shape[0] == BATCH and LENGTH in tensor.shape)


@every_kind
@pytest.mark.parametrize("is_bf16", [False, True])
def test_saved_activations_are_what_the_graph_saves(kind: str, is_bf16: bool) -> None:
    config = with_kind(kind)
    part, module = of_kind(config), random_model(config).get_submodule(of_kind(config).prefix)
    h_BSD, e_BSD = states(config)
    saved, carries = Saved(is_bf16), []

    def run() -> Tensor:
        new_BSD, *carries[:] = run_alone(module, h_BSD, e_BSD)
        return new_BSD

    saved.run(run)
    shared = [e_BSD, *module.parameters()]  # by all loops
    if part.spec.new_carry_elements is not None:  # earlier loops made the slots; later loops save what this one made
        before, after = carries
        shared += before
        for tensor in after:
            saved.pack(tensor)
    num_bytes = saved.num_bytes(shared)
    assert num_bytes == BATCH * LENGTH * part.spec.saved_activations(part.config, config, saved.runtime)


def run_core(model: Mythos, batch: Batch, num_loops: int) -> Tensor:
    """The core alone."""
    with torch.no_grad():
        inputs = model._inputs(batch)
    return run_loop(model.core.step, model._start(inputs), inputs, Schedule(num_loops)).h_BSD


def with_and_without(kind: str, name: str) -> tuple[Mythos, Mythos]:
    """A model with a part inside attention, and one without it that has the same weights otherwise."""
    model = random_model(with_kind(kind, name, core_ffn=model_config("debug-dense").core_ffn))
    bare = Mythos(replace(model.config, loop=LoopConfig()))
    own = (".attention.part.", "core.parts.")
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if not any(each in k for each in own)})
    return model, bare


@inside
@every_attention
def test_flops_inside_attention_are_those_that_a_loop_has_more(kind: str, name: str) -> None:
    """The counter knows no causal masks, which leave half of the attention; nothing masks registers."""
    model, bare = with_and_without(kind, name)
    batch, counts = random_batch(model.config, batch=BATCH, length=LENGTH, num_documents=2), []
    for each in (model, bare):
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
            run_core(each, batch, NUM_LOOPS)
        counts.append(counter.get_total_flops())
    of_loop = [loop_flops(each.config, LENGTH) for each in (model, bare)]
    matrices, attention = (of_loop[0].matrices - of_loop[1].matrices, of_loop[0].attention - of_loop[1].attention)
    expected = BATCH * LENGTH * NUM_LOOPS * (matrices + attention * (1 if kind == "memory_tokens" else 2))
    assert counts[0] - counts[1] == pytest.approx(expected, rel=1e-12)


@inside
@every_attention
@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize("has_mask", [False, True])
def test_activations_saved_inside_attention_are_what_a_further_loop_saves_more(
    kind: str, name: str, is_bf16: bool, has_mask: bool
) -> None:
    models = with_and_without(kind, name)
    batch, measured = random_batch(models[0].config, batch=BATCH, length=LENGTH, num_documents=2), []
    batch = batch if has_mask else batch._replace(document_ids_BS=None)
    for model in models:
        of_loops = []
        for num_loops in (2, 3):
            saved = Saved(is_bf16)
            saved.run(lambda: run_core(model, batch, num_loops))  # noqa: B023  (called at once)
            of_loops.append(saved.num_bytes(model.parameters()))
        measured.append(of_loops[1] - of_loops[0])
    part = of_kind(models[0].config)
    runtime = replace(saved.runtime, num_masked_keys=LENGTH if has_mask else 0)
    of_block = part.spec.saved_in_attention(part.config, models[0].config, runtime)
    assert measured[0] - measured[1] == BATCH * LENGTH * models[0].config.num_core_layers * of_block


@every_kind
def test_carry_elements_are_the_size_of_the_carry(kind: str) -> None:
    config = with_kind(kind)
    part, model = of_kind(config), random_model(config)
    h_BSD, e_BSD = states(config)
    state = model.core.start(h_BSD, e_BSD)
    carried = tree_leaves((state.carries, state.layer_carries))
    assert all(each.shape[0] == BATCH for each in carried)
    num_elements = sum(each.numel() for each in carried)
    of_sequence = part.spec.of_sequence.carry_elements(part.config, config)
    assert num_elements == BATCH * (LENGTH * part.spec.carry_elements(part.config, config) + of_sequence)
    inputs = random_batch(config, batch=BATCH, length=LENGTH)
    after, _ = model.core.step(state, model._inputs(inputs))
    assert [each.shape for each in tree_leaves(after)] == [each.shape for each in tree_leaves(state)]


@every_kind
def test_cached_elements_are_the_bytes_of_the_cache(kind: str) -> None:
    config = with_kind(kind)
    part, model = of_kind(config), random_model(config)
    cache = model.new_cache(NUM_LOOPS, LENGTH)
    model.decode(random_batch(config, batch=BATCH, length=LENGTH).tokens_BS, cache)
    of_parts = sum(each.num_bytes for each in cache.parts if each is not None)
    assert of_parts == 4 * BATCH * LENGTH * part.spec.cached_elements(part.config, config, NUM_LOOPS)
    assert cache.num_bytes == decode_bytes(config, NUM_LOOPS, LENGTH, num_sequences=BATCH).cache


@every_kind
def test_figures_are_finite_scalars_of_the_metrics(kind: str, packed: Path, tmp_path: Path) -> None:
    own = f"model.injection={{kind: {kind}}}" if kind in INJECTIONS else f"model.loop.parts=[{{kind: {kind}}}]"
    run = run_config(*ONE_STEP, own, f"data.dir={packed}", f"run.dir={tmp_path}")
    module = random_model(run.model).get_submodule(of_kind(run.model).prefix)
    figures = module.figures() | gate_figures(
        each.gates().abs() for each in inside_attention(random_model(run.model)) if each.gates() is not None
    )
    assert all(value.dim() == 0 and value.isfinite() for value in figures.values())
    train(run, prepare(run))
    for name in figures:
        (value,) = recorded(tmp_path / "figures", f"{KINDS[kind].family}/{name}").values()
        assert np.isfinite(value)


@every_kind
@pytest.mark.parametrize("name", ["debug", "debug-mla"])
def test_decoding_token_by_token_equals_the_full_forward(kind: str, name: str) -> None:
    model = random_model(with_kind(kind, name, initial_state="zero"))
    batch = random_batch(model.config, batch=BATCH, length=LENGTH)
    output = model(batch, NUM_LOOPS)
    cache = model.new_cache(NUM_LOOPS, LENGTH)
    logits_BSV = torch.cat([model.decode(token_B1, cache) for token_B1 in batch.tokens_BS.split(1, dim=1)], 1)
    together_BSV = model.decode(batch.tokens_BS, model.new_cache(NUM_LOOPS, LENGTH))
    assert relative_error(logits_BSV, together_BSV) < 1e-5
    nll_BS = torch.nn.functional.cross_entropy(logits_BSV.transpose(1, 2), batch.targets_BS, reduction="none")
    assert relative_error(nll_BS, output.nll_XBS[0]) < 1e-5


@every_kind
@pytest.mark.parametrize("remat", ["loop", "block", "offload"])
def test_recomputed_gradients_equal_kept_ones(kind: str, remat: str) -> None:
    policy = Remat("loop" if remat == "offload" else remat, offload_states=remat == "offload")
    (kept, expected), (again, found) = (backward(with_kind(kind), each) for each in (Remat(), policy))
    assert torch.equal(kept, again)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert relative_error(found[name], gradient) < 1e-6, name


def backward(config: ModelConfig, remat: Remat) -> tuple[Tensor, dict[str, Tensor]]:
    model = random_model(config)
    model.core.remat = remat
    loss = model(random_batch(config, num_documents=2), NUM_LOOPS, 3, noise_seed=1).nll_XBS.sum()
    loss.backward()
    return loss.detach(), gradients(model)


@every_kind
@pytest.mark.parametrize("remat", ["none", "loop"])
def test_sequences_of_their_own_depth_equal_each_alone(kind: str, remat: str) -> None:
    loops_B = np.array([2, 5, 1, 3])
    model = random_model(with_kind(kind, max_loops=4))
    model.core.remat = Remat(remat)
    batch = random_batch(model.config, batch=4, num_documents=2)
    output = model(batch, 5, loops_B=loops_B, noise_seed=1)
    output.nll_XBS.sum().backward()
    found = gradients(model)
    model.zero_grad()
    rows = [model(one_row(batch, row), int(loops), noise_seed=1).nll_XBS for row, loops in enumerate(loops_B)]
    sum(row.sum() for row in rows).backward()
    expected = gradients(model)
    assert relative_error(output.nll_XBS, torch.cat(rows, 1)) < 1e-6
    for name, gradient in expected.items():
        assert relative_error(found[name], gradient) < 3e-6, name


def one_row(batch: Batch, row: int) -> Batch:
    return take_rows(batch, slice(row, row + 1))


@every_kind
@torch.no_grad()
def test_a_token_changes_no_earlier_token_and_no_other_document(kind: str) -> None:
    model = random_model(with_kind(kind, "debug-dense"))
    batch = random_batch(model.config, batch=BATCH, length=LENGTH, num_documents=3)
    changed_BS = torch.arange(LENGTH).expand(BATCH, LENGTH) == torch.tensor([[4], [9], [13]])[:BATCH]
    tokens_BS = torch.where(changed_BS, (batch.tokens_BS + 1) % model.config.vocab_size, batch.tokens_BS)
    position_B1, ids_BS = changed_BS.long().argmax(1, keepdim=True), batch.document_ids_BS
    may_change_BS = (torch.arange(LENGTH) >= position_B1) & (ids_BS == ids_BS.gather(1, position_B1))
    states = [model(each, NUM_LOOPS).state_BSD for each in (batch, batch._replace(tokens_BS=tokens_BS))]
    differs_BS = ((states[0] - states[1]).abs() > 1e-5).any(-1)
    assert differs_BS[changed_BS].all()
    assert not (differs_BS & ~may_change_BS).any()


@every_kind
@pytest.mark.parametrize("remat", ["none", "loop", "block"])
def test_truncated_gradients_are_those_of_loops_from_a_detached_state(kind: str, remat: str) -> None:
    """The border stops the gradients of the carries as it does those of the state."""
    model = random_model(with_kind(kind, "debug-dense"))
    batch = random_batch(model.config, num_documents=2)
    model.core.remat = Remat(remat)
    model(batch, NUM_LOOPS, 2).state_BSD.square().sum().backward()
    found = gradients(model)
    model.zero_grad()
    inputs = model._inputs(batch)
    state = run_loop(model.core.step, model._start(inputs), inputs, Schedule(NUM_LOOPS - 2)).map(Tensor.detach)
    for loop in range(NUM_LOOPS - 2, NUM_LOOPS):
        state, _ = model.core.step(state, inputs._replace(loop=loop))
    state.h_BSD.square().sum().backward()
    for name, gradient in gradients(model).items():
        assert relative_error(found[name], gradient) < 1e-5, name
