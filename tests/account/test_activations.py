"""The account of activations held against what a forward really leaves behind."""

from dataclasses import replace

import pytest
import torch
from helpers import MODELS, fill, model_config, random_batch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mythos.account.activations import ActivationBytes, activation_bytes
from mythos.account.saved import Runtime, SavedActivations
from mythos.config.model import AdditiveInjection, DiagonalInjection, LinearInjection, ModelConfig
from mythos.config.parallel import SingleParallel
from mythos.loop.remat import remat_of
from mythos.model.mythos import Mythos

BATCH, LENGTH, CHUNK = 2, 64, 32
STATE = 4 * BATCH * LENGTH * 64


class Living(TorchDispatchMode):
    """Remembers every tensor that an operation makes, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def num_bytes(self, own: set[int]) -> int:
        made = [item for place, item in self.made.items() if place not in own]
        return sum(size for reference, size in made if not reference.expired())


def model_of_width_64(name: str = "debug", **changes) -> ModelConfig:
    config = replace(model_config(name), dim=64, **changes)
    return replace(config, head=replace(config.head, chunk_tokens=CHUNK))


def living_bytes(config: ModelConfig, parallel: SingleParallel, num_loops: int, num_grad_loops: int) -> int:
    """Memory alive after a forward whose output is held, without parameters."""
    model = Mythos(config)
    fill(model)
    model.core.remat = remat_of(parallel)
    batch = random_batch(config, batch=BATCH, length=LENGTH)
    is_bf16 = parallel.precision == "bf16"
    with Living() as living, torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        output = model(batch, num_loops, num_grad_loops, noise_seed=1)
    assert output.nll_XBS.requires_grad
    own = [*model.parameters(), *model.buffers(), *(part for part in batch if part is not None)]
    return living.num_bytes({tensor.untyped_storage()._cdata for tensor in own})


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
    ]


@pytest.mark.parametrize("config", variants())
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("remat", ["none", "block", "loop"])
def test_a_pass_keeps_what_the_account_says(config: ModelConfig, remat: str, precision: str) -> None:
    parallel = SingleParallel(remat=remat, precision=precision)
    measured = living_bytes(config, parallel, 3, 3) - living_bytes(config, parallel, 2, 2)
    assert account(config, parallel).per_loop == pytest.approx(measured, rel=0.02)  # vectors of width D are left out


@pytest.mark.parametrize("config", variants())
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_runs_once_keeps_what_the_account_says(config: ModelConfig, precision: str) -> None:
    parallel = SingleParallel(remat="loop", precision=precision)
    found = account(config, parallel)
    copies = 2 * config.vocab_size * config.dim if precision == "bf16" else 0
    chunk = CHUNK * config.vocab_size * (18 if precision == "bf16" else 16) + copies
    expected = found.prelude + found.coda - chunk + found.per_loop  # the chunk lives in the backward only
    assert expected == pytest.approx(living_bytes(config, parallel, 1, 1), rel=0.05)


def test_passes_without_gradients_keep_nothing() -> None:
    config, parallel = model_of_width_64("debug-dense"), SingleParallel()
    assert living_bytes(config, parallel, 7, 2) == living_bytes(config, parallel, 3, 2)


@pytest.mark.parametrize(("name", "choices"), [("debug", 2 * 2 * 2 * BATCH * LENGTH), ("debug-dense", 0)])
def test_a_recomputed_pass_keeps_one_state_and_its_choices(name: str, choices: int) -> None:
    config = model_of_width_64(name)
    assert account(config, SingleParallel(remat="loop")).per_loop == STATE + choices
    offloaded = account(config, SingleParallel(remat="loop", offload_states=True))
    assert (offloaded.per_loop, offloaded.host_per_loop) == (choices, STATE)


def test_the_peak_grows_by_passes_with_gradients_from_what_is_held_once() -> None:
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
def test_a_compiled_mixture_on_a_gpu_keeps_what_was_measured(fused: bool, measured_mib: int) -> None:
    """docs/performance.md: the layer D 1024, E 64, F 512, K 8, 32,768 tokens, bf16 copies of the experts included."""
    model = model_config("560m-a210m")
    runtime = Runtime(width=2, casts_weights=True, is_cuda=True, compiled=True, fused_experts=fused)
    saved = SavedActivations(model, runtime, num_masked_keys=0)
    found = 32_768 * saved.mixture(model.core_ffn) + saved.expert_copies
    assert found / 2**20 == pytest.approx(measured_mib, rel=0.10)
