"""Compare the account of activations with the tensors that a forward keeps alive."""

from dataclasses import replace

import pytest
import torch
from helpers import MODELS, fill, model_config, random_batch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mythos.account.activations import ActivationBytes, activation_bytes
from mythos.account.saved import Runtime, SavedActivations
from mythos.config.injection import AdditiveInjection, DiagonalInjection, LinearInjection
from mythos.config.loop_parts.attention import CrossLoopAttentionConfig, ValueResidualConfig
from mythos.config.loop_parts.memory_tokens import MemoryTokensConfig
from mythos.config.model import ModelConfig
from mythos.config.parallel import SingleParallel
from mythos.config.parts import PARTS, LoopConfig
from mythos.loop.remat import remat_of
from mythos.model.mythos import Mythos

BATCH, LENGTH, CHUNK = 2, 64, 32
COUNTED = ["depth_attention", "lanes", "loop_average"]
"""Loop parts whose bytes are compared; ``tests/loop/parts`` compares those of every part alone."""
STATE = 4 * BATCH * LENGTH * 64


class LiveTensors(TorchDispatchMode):
    """Record every tensor that an operation creates, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self.created: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.created[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def num_bytes(self, own: set[int]) -> int:
        created = [item for key, item in self.created.items() if key not in own]
        return sum(size for reference, size in created if not reference.expired())


def model_of_width_64(name: str = "debug", **changes) -> ModelConfig:
    config = replace(model_config(name), dim=64, **changes)
    return replace(config, head=replace(config.head, chunk_tokens=CHUNK))


def live_bytes(config: ModelConfig, parallel: SingleParallel, num_loops: int, num_grad_loops: int) -> int:
    """Bytes alive after a forward while its output is alive, without parameters."""
    model = Mythos(config)
    fill(model)
    model.core.remat = remat_of(parallel)
    batch = random_batch(config, batch=BATCH, length=LENGTH)
    is_bf16 = parallel.precision == "bf16"
    with LiveTensors() as live, torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        output = model(batch, num_loops, num_grad_loops, noise_seed=1)
    assert output.nll_XBS.requires_grad
    own = [*model.parameters(), *model.buffers(), *(part for part in batch if part is not None)]
    return live.num_bytes({tensor.untyped_storage()._cdata for tensor in own})


def account(config: ModelConfig, parallel: SingleParallel) -> ActivationBytes:
    return activation_bytes(config, parallel, BATCH, LENGTH, mask_documents=True)


def variants() -> list[ModelConfig]:
    base = model_of_width_64()
    experts, attention = base.core_ffn, base.attention
    return [
        *map(model_of_width_64, MODELS),
        replace(base, core_ffn=replace(experts, num_experts=16, num_active=4, num_shared=0, score="softmax")),
        replace(base, injection=LinearInjection(), norm_position="sandwich"),
        replace(base, injection=AdditiveInjection(), prelude_norm=False),
        replace(base, injection=DiagonalInjection(update_rule="parallel"), attention=replace(attention, qk_norm=False)),
        *(replace(base, loop=LoopConfig(parts=(spec.config(),))) for spec in PARTS.values() if spec.attention_build),
        *(replace(base, loop=LoopConfig(parts=(PARTS[kind].config(),))) for kind in COUNTED),
        model_of_width_64("debug-mla", loop=LoopConfig(parts=(CrossLoopAttentionConfig(), ValueResidualConfig()))),
    ]


@pytest.mark.parametrize("config", variants())
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("remat", ["none", "block", "loop"])
def test_a_loop_saves_the_bytes_of_the_account(config: ModelConfig, remat: str, precision: str) -> None:
    parallel = SingleParallel(remat=remat, precision=precision)
    measured = live_bytes(config, parallel, 3, 3) - live_bytes(config, parallel, 2, 2)
    assert account(config, parallel).per_loop == pytest.approx(measured, rel=0.02)  # vectors of width D are omitted


@pytest.mark.parametrize("config", variants())
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prelude_and_coda_save_the_bytes_of_the_account(config: ModelConfig, precision: str) -> None:
    parallel = SingleParallel(remat="loop", precision=precision)
    counted = account(config, parallel)
    weight_copies = 2 * config.vocab_size * config.dim if precision == "bf16" else 0
    chunk = CHUNK * config.vocab_size * (18 if precision == "bf16" else 16) + weight_copies
    expected = counted.prelude + counted.coda - chunk + counted.per_loop  # the chunk is alive in the backward only
    assert expected == pytest.approx(live_bytes(config, parallel, 1, 1), rel=0.05)


@pytest.mark.parametrize("kind", ["depth_attention", "loop_average"])
@pytest.mark.parametrize("remat", ["none", "loop", "offload"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_carried_slots_are_saved_once_for_all_loops(kind: str, remat: str, precision: str) -> None:
    """The bytes are linear in the loops, although each loop reads the slots of all before it."""
    config = model_of_width_64("debug-dense", max_loops=64, loop=LoopConfig(parts=(PARTS[kind].config(num_slots=16),)))
    is_offloaded = remat == "offload"
    parallel = SingleParallel(remat="loop" if is_offloaded else remat, offload_states=is_offloaded, precision=precision)
    by_loops = {num_loops: live_bytes(config, parallel, num_loops, num_loops) for num_loops in (2, 4, 8, 16)}
    counted = account(config, parallel)
    for num_loops in (4, 8, 16):
        measured = by_loops[num_loops] - by_loops[2]
        assert (num_loops - 2) * (counted.per_loop + counted.host_per_loop) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("name", ["debug-dense", "debug-mla"])
@pytest.mark.parametrize("remat", ["none", "loop"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_registers_are_counted_for_each_sequence(name: str, remat: str, precision: str) -> None:
    """What 48 registers save more than 16."""
    parallel, counted, measured = SingleParallel(remat=remat, precision=precision), [], []
    for num_tokens in (16, 48):
        config = model_of_width_64(name, loop=LoopConfig(parts=(MemoryTokensConfig(num_tokens=num_tokens),)))
        counted.append(account(config, parallel).per_loop)
        measured.append(live_bytes(config, parallel, 3, 3) - live_bytes(config, parallel, 2, 2))
    assert counted[1] - counted[0] == pytest.approx(measured[1] - measured[0], rel=0.1)


def test_loops_without_gradients_save_nothing() -> None:
    config, parallel = model_of_width_64("debug-dense"), SingleParallel()
    assert live_bytes(config, parallel, 7, 2) == live_bytes(config, parallel, 3, 2)


@pytest.mark.parametrize(("name", "index_bytes"), [("debug", 2 * 2 * 2 * BATCH * LENGTH), ("debug-dense", 0)])
def test_a_recomputed_loop_saves_one_state_and_its_expert_indices(name: str, index_bytes: int) -> None:
    config = model_of_width_64(name)
    assert account(config, SingleParallel(remat="loop")).per_loop == STATE + index_bytes
    offloaded = account(config, SingleParallel(remat="loop", offload_states=True))
    assert (offloaded.per_loop, offloaded.host_per_loop) == (index_bytes, STATE)


def test_the_peak_grows_with_the_loops_with_gradients() -> None:
    config = model_of_width_64()
    saved, loop = (account(config, SingleParallel(remat=remat)) for remat in ("none", "loop"))
    assert loop.recomputed == saved.per_loop
    assert loop.fixed == loop.prelude + max(loop.coda, loop.recomputed + loop.backward)
    assert loop.peak(8) == loop.fixed + 8 * loop.per_loop < saved.peak(8)
    assert saved.peak(1) == saved.prelude + max(saved.coda, saved.backward) + saved.per_loop


def test_a_mask_costs_a_copy_in_every_layer() -> None:
    config = model_of_width_64()
    without, masked = (
        activation_bytes(config, SingleParallel(), BATCH, LENGTH, mask_documents=mask) for mask in (False, True)
    )
    assert masked.per_loop - without.per_loop == 2 * 4 * BATCH * LENGTH * LENGTH


@pytest.mark.parametrize(("fused", "measured_mib"), [(True, 946), (False, 2227)])
def test_a_compiled_mixture_on_a_gpu_saves_the_measured_bytes(fused: bool, measured_mib: int) -> None:
    """docs/performance.md: a layer D 1024, E 64, F 512, K 8, 32,768 tokens, with bf16 weight copies of the experts."""
    model = model_config("560m-a210m")
    runtime = Runtime(width=2, casts_weights=True, is_cuda=True, compiled=True, fused_experts=fused)
    saved = SavedActivations(model, runtime)
    counted = 32_768 * saved.mixture(model.core_ffn) + saved.expert_weight_copies
    assert counted / 2**20 == pytest.approx(measured_mib, rel=0.10)
